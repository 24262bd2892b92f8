// Names and numbers of a figure's marks: to the mouse, to a finger, and to the arrow keys of whoever tabs to it.
const REACH = 24; // pixels

function nearest(spots, x, y, width, height) {
  let best = null;
  for (const [index, [across, down]] of spots.entries()) {
    const distance = Math.hypot(across * width - x, down * height - y);
    if (distance <= REACH && (best === null || distance < best.distance)) best = { index, distance };
  }
  return best?.index ?? null;
}

function watch(image, spots, run) {
  const frame = document.createElement("span");
  frame.className = "hover-frame";
  image.replaceWith(frame);
  const told = document.createElement("span");
  told.className = "hover-told";
  told.setAttribute("role", "status");
  told.hidden = true;
  frame.append(image, told);
  frame.tabIndex = 0;
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", "Figure; arrow keys read its marks one after another");
  let shown = null;

  function show(index) {
    shown = index;
    told.hidden = index === null;
    if (index === null) return;
    const [across, down, text] = spots[index];
    told.textContent = `${text} (${run})`;
    told.style.left = `${100 * across}%`;
    told.style.top = `${100 * down}%`;
    told.classList.toggle("to-left", across > 0.5);
    told.classList.toggle("above", down > 0.5);
  }

  frame.addEventListener("pointermove", (event) => {
    const box = image.getBoundingClientRect();
    show(nearest(spots, event.clientX - box.left, event.clientY - box.top, box.width, box.height));
  });
  frame.addEventListener("pointerleave", () => show(null));
  frame.addEventListener("blur", () => show(null));
  frame.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") show(null);
    if (!step) return;
    event.preventDefault();
    show(shown === null ? (step > 0 ? 0 : spots.length - 1) : (shown + step + spots.length) % spots.length);
  });
}

document.addEventListener("DOMContentLoaded", () => {
  for (const data of document.querySelectorAll("script.figure-hover")) {
    const { run, figures } = JSON.parse(data.textContent);
    let cell = data.previousElementSibling;
    while (cell && !cell.querySelector("img")) cell = cell.previousElementSibling;
    const images = [...(cell?.querySelectorAll("img") ?? [])];
    figures.forEach((spots, number) => {
      if (spots.length && images[number]) watch(images[number], spots, run);
    });
  }
});
