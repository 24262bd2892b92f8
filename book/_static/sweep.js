// A slider over the sweep of λ: one bar per task, from the numbers of a record that the page holds.
(() => {
  "use strict";
  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  function build(root, { average, methods }) {
    const select = element("select", { id: "sweep-method" }, ...methods.map((method, i) => element("option", { value: i, textContent: method.label })));
    const input = element("input", { type: "range", id: "sweep-lambda", min: 0, step: 1 });
    const chosen = element("output", { htmlFor: input.id });
    const status = element("p", { className: "play-status" });
    const rows = element("div", { className: "sweep-rows" });
    const tasks = Object.keys(Object.values(methods[0].accuracy)[0]);
    const bars = tasks.map((task) => {
      const name = element("span", { textContent: task, className: task === average ? "average" : "" });
      const fill = element("span"), value = element("output", { className: name.className });
      value.dataset.task = task;
      const bar = element("span", { className: "play-bar" }, fill);
      bar.setAttribute("aria-hidden", "true");
      rows.append(name, bar, value);
      return (share) => {
        fill.style.width = `${share}%`;
        value.textContent = `${share.toFixed(1)} %`;
      };
    });

    // Numbers as names would come in another order: 0 and 1 before 0.1.
    const scalings = (accuracy) => Object.keys(accuracy).sort((a, b) => a - b);

    function show() {
      const { accuracy } = methods[select.value], known = scalings(accuracy);
      const at = accuracy[known[input.value]];
      const best = known.reduce((top, one) => (accuracy[one][average] > accuracy[top][average] ? one : top));
      chosen.textContent = known[input.value];
      input.setAttribute("aria-valuetext", `λ = ${known[input.value]}`);
      tasks.forEach((task, i) => bars[i](at[task]));
      status.textContent = `best average: ${accuracy[best][average].toFixed(1)} % at λ = ${best}`;
    }

    function restart() {
      const known = scalings(methods[select.value].accuracy);
      input.max = known.length - 1;
      input.value = Math.max(0, known.indexOf("0.3"));
      show();
    }

    select.addEventListener("change", restart);
    input.addEventListener("input", show);
    root.replaceChildren(
      element("div", { className: "play-field" }, element("label", { htmlFor: select.id, textContent: "method" }), select),
      element("div", { className: "play-slider" }, element("label", { htmlFor: input.id, textContent: "λ of all tasks" }), input, chosen),
      status, rows);
    restart();
  }

  document.addEventListener("DOMContentLoaded", () => {
    const root = document.getElementById("sweep");
    if (root) build(root, JSON.parse(root.querySelector("script").textContent));
  });
})();
