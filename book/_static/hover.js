// Names and numbers of a figure's marks: to the mouse, to a finger, and to the arrow keys of whoever tabs to it. And
// where a number in the text comes from, to fingers and the Tab key; the mouse has the browser's own box for that.
const REACH = 24; // pixels

function toldBox() {
  const told = document.createElement("span");
  told.className = "hover-told";
  told.setAttribute("role", "status");
  told.hidden = true;
  return told;
}

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
  const told = toldBox();
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

function watchNumbers(numbers) {
  const told = toldBox();
  told.classList.add("of-number");
  document.body.append(told);
  let asked = null;

  function show(number) {
    asked = number;
    told.hidden = number === null;
    if (number === null) return;
    told.textContent = number.title;
    const [around, seen] = [number.getBoundingClientRect(), document.documentElement.clientWidth];
    told.style.left = `${Math.max(8, Math.min(around.left, seen - told.offsetWidth - 8)) + scrollX}px`;
    told.style.top = `${around.bottom + scrollY + 4}px`;
  }

  for (const number of numbers) {
    number.tabIndex = 0;
    number.addEventListener("focus", () => show(number));
    number.addEventListener("blur", () => show(null));
    number.addEventListener("click", () => show(number)); // after Escape, and where a tap gives no focus
  }
  document.addEventListener("keydown", (event) => event.key === "Escape" && show(null));
  document.addEventListener("pointerdown", (event) => asked?.contains(event.target) || show(null));
}

document.addEventListener("DOMContentLoaded", () => {
  const numbers = document.querySelectorAll("abbr.measured[title]");
  if (numbers.length) watchNumbers(numbers);
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
