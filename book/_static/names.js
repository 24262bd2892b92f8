// The theme's arrows in the contents have no text: a name for readers that hear the page.
document.addEventListener("DOMContentLoaded", () => {
  for (const arrow of document.querySelectorAll(".bd-sidebar-primary details > summary")) {
    const page = arrow.closest("li")?.querySelector("a")?.textContent.trim() ?? "this page";
    if (!arrow.textContent.trim()) arrow.setAttribute("aria-label", `Pages below ${page}`);
  }
});
