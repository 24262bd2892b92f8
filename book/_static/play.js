// The page "Play: merge in your browser": controls, images with their predictions, and accuracies. The encoder is in
// play-engine.js, its weights and images in play-world.js, which the book's build writes.
(() => {
  "use strict";
  const TASK_SPAN = [0, 1], DEPTH_SPAN = [-0.5, 1.5], STEP = 0.01, MOST_NOISE = 0.5, MOST_WORKERS = 4;
  const element = (tag, properties = {}, ...children) => {
    const { dataset = {}, ...own } = properties;
    const made = Object.assign(document.createElement(tag), own);
    Object.assign(made.dataset, dataset);
    made.append(...children);
    return made;
  };
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const signed = (value) => value.toFixed(2).replace("-", "−");
  let names = 0;

  // A slider with its name and its value, both in view and for screen readers.
  function slider(label, [min, max], step, show, onInput) {
    const id = `play-control-${++names}`;
    const input = element("input", { type: "range", id, min, max, step });
    const output = element("output", { htmlFor: id });
    const set = (value) => {
      input.value = value;
      output.value = show(value);
      input.setAttribute("aria-valuetext", show(value));
    };
    input.addEventListener("input", () => {
      set(Number(input.value));
      onInput(Number(input.value));
    });
    return { node: element("div", { className: "play-slider" }, element("label", { htmlFor: id, textContent: label }), input, output), input, set };
  }

  // -------------------------------------------------------------------------------------------------- computing

  // Workers, each with some of the tasks; where the browser refuses them, the page itself computes between its events.
  function servers(header, buffer, onAnswer) {
    const engine = adamergingEngine();
    const count = Math.max(1, Math.min(MOST_WORKERS, navigator.hardwareConcurrency || 1, header.tasks.length));
    const shares = (n) => Array.from({ length: n }, (_, w) => [...header.tasks.keys()].filter((k) => k % n === w));
    try {
      const source = `const serve = (${adamergingEngine})().serve(postMessage); onmessage = (e) => serve(e.data);`;
      const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
      return shares(count).map((tasks) => {
        const worker = new Worker(url);
        worker.onmessage = (event) => onAnswer(event.data);
        worker.onerror = (event) => onAnswer({ failure: event.message || "the browser stopped a worker" });
        worker.postMessage({ header, buffer });
        return (question) => worker.postMessage({ ...question, tasks });
      });
    } catch (error) {
      console.warn(`No workers here, so the page itself computes: ${error.message}`);
      const serve = engine.serve(onAnswer);
      serve({ header, buffer });
      return [(question) => serve({ ...question, tasks: shares(1)[0] })];
    }
  }

  // -------------------------------------------------------------------------------------------------- the page

  function build(root, header, buffer) {
    const world = adamergingEngine().open(header, buffer); // images and labels; the workers merge
    const tensors = header.tensors.map((t) => t.depth);
    const K = header.tasks.length;
    const state = { coefficients: [], merged: header.tasks.map(() => true), share: 0, id: 0, asked: 0, first: 0 };
    let found = [], before = [];
    const spread = (rows) => rows.map((row) => (row.length === 1 ? tensors.map(() => row[0]) : [...row]));

    // ------------------------------------------------------------------------------------------ answers

    const ask = servers(header, buffer, receive);
    const blank = () => header.tasks.map(() => ({ predicted: [], entropy: [] }));

    function run() {
      before = found.length ? found : blank();
      found = blank();
      Object.assign(state, { id: state.id + 1, asked: performance.now(), first: 0 });
      root.dataset.state = "computing";
      say("computing …");
      const coefficients = state.coefficients.map((row, k) => (state.merged[k] ? row : [0]));
      for (const one of ask) one({ id: state.id, coefficients, share: state.share });
    }

    // Sliders move faster than a merge: the last position counts, once per frame.
    let waiting = false;
    function runSoon() {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        run();
      });
    }

    function receive({ id, task, from, predicted, entropy, failure }) {
      if (failure) {
        root.dataset.state = "failed";
        say(`The computation failed: ${failure}`);
        return;
      }
      if (id !== state.id) return;
      predicted.forEach((value, i) => {
        found[task].predicted[from + i] = value;
        found[task].entropy[from + i] = entropy[i];
      });
      cards[task].show();
      const counts = found.map((one) => one.predicted.filter((value) => value !== undefined).length);
      const seconds = ((performance.now() - state.asked) / 1000).toFixed(1);
      if (!state.first && counts.every((count) => count >= header.shown)) {
        state.first = seconds;
        root.dataset.first = seconds;
      }
      const whole = counts.every((count) => count === header.images);
      if (whole) root.dataset.state = "done";
      if (state.first) summarise(whole, counts.reduce((sum, count) => sum + count, 0), seconds);
    }

    const accuracyOf = (task) => {
      const labels = world.labelsOf(task);
      const right = found[task].predicted.map((value, i) => value === labels[i]).filter((_, i) => found[task].predicted[i] !== undefined);
      return right.length ? { share: mean(right), right: right.filter(Boolean).length, of: right.length } : null;
    };

    // ------------------------------------------------------------------------------------------ controls

    const select = element("select", { id: "play-choice" });
    for (const choice of header.choices) select.append(element("option", { value: choice.id, textContent: choice.label }));
    const own = element("option", { value: "own", textContent: "your own coefficients", disabled: true });
    select.append(own);
    select.addEventListener("change", () => start(select.value));
    const all = slider("λ of all tasks", TASK_SPAN, STEP, signed, (value) => {
      header.tasks.forEach((_, k) => move(k, null, value));
      changed();
    });
    const noise = slider("noise on the images", [0, MOST_NOISE], STEP, (v) => `${Math.round(100 * v)} %`, (value) => {
      state.share = value;
      cards.forEach((card) => card.draw());
      runSoon();
    });
    const status = element("p", { className: "play-status" });
    status.setAttribute("role", "status");
    const average = element("strong", { textContent: "–" });
    const bar = meter();
    const entropy = element("span", { className: "play-entropy" });
    const say = (text) => { status.textContent = text; };

    function summarise(whole, count, seconds) {
      const each = header.tasks.map((_, k) => accuracyOf(k).share);
      average.textContent = percent(mean(each));
      bar.set(mean(each));
      entropy.textContent = `mean entropy ${mean(found.map((one) => mean(one.entropy.filter((v) => v !== undefined)))).toFixed(2)} nats`;
      const total = K * header.images;
      say(whole ? `all ${total} images in ${seconds} s, the ${K * header.shown} shown in ${state.first} s` : `${count} of ${total} images …`);
    }

    // Moves λ of a task, or of one depth of it, so that its mean is the value; differences between tensors stay.
    function move(task, depth, value) {
      const row = state.coefficients[task];
      const concerned = [...row.keys()].filter((l) => depth === null || tensors[l] === depth);
      const shift = value - mean(concerned.map((l) => row[l]));
      for (const l of concerned) row[l] += shift;
    }

    function changed() {
      select.value = "own";
      refresh();
      runSoon();
    }

    function refresh() {
      all.set(mean(state.coefficients.map(mean)));
      cards.forEach((card) => card.refresh());
      byDepth.refresh();
    }

    function start(id) {
      const choice = header.choices.find((one) => one.id === id);
      Object.assign(state, { coefficients: spread(choice.coefficients), merged: header.tasks.map(() => true) });
      select.value = id;
      refresh();
      runSoon();
    }

    // ------------------------------------------------------------------------------------------ a task

    function card(task) {
      const name = header.tasks[task], labels = world.labelsOf(task), classes = header.classes[task];
      const accuracy = element("span", { className: "play-accuracy", textContent: "–" }), own = meter();
      const control = slider(`λ of ${name}`, TASK_SPAN, STEP, signed, (value) => {
        move(task, null, value);
        changed();
      });
      const merged = element("input", { type: "checkbox", checked: true });
      merged.addEventListener("change", () => {
        state.merged[task] = merged.checked;
        changed();
      });
      const alone = element("button", { type: "button", textContent: "alone", title: `Only the expert of ${name}: its λ is 1, all others are left out` });
      alone.addEventListener("click", () => {
        state.merged = header.tasks.map((_, k) => k === task);
        state.coefficients[task] = tensors.map(() => 1);
        changed();
      });
      const pictures = Array.from({ length: header.shown }, (_, i) => {
        const canvas = element("canvas", { width: 32, height: 32 });
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", `image of ${name}: ${classes[labels[i]]}`);
        const caption = element("figcaption");
        return { node: element("figure", {}, canvas, caption), canvas, caption };
      });

      function draw() {
        pictures.forEach(({ canvas }, i) => {
          const pixels = world.noisy(task, i, state.share), image = new ImageData(32, 32);
          for (let p = 0; p < 1024; p++) {
            for (let c = 0; c < 3; c++) image.data[4 * p + c] = pixels[1024 * c + p];
            image.data[4 * p + 3] = 255;
          }
          canvas.getContext("2d").putImageData(image, 0, 0);
        });
      }

      function show() {
        const told = accuracyOf(task);
        accuracy.textContent = told ? `${percent(told.share)} (${told.right} of ${told.of})` : "–";
        if (told) own.set(told.share);
        pictures.forEach(({ node, caption }, i) => {
          const value = found[task].predicted[i];
          if (value === undefined) return;
          const right = value === labels[i], was = before[task].predicted[i];
          node.className = right ? "right" : "wrong";
          node.classList.toggle("changed", was !== undefined && was !== value);
          caption.textContent = `${right ? "✓" : "✗"} ${classes[value]}`;
          if (!right) caption.append(element("small", { textContent: `is: ${classes[labels[i]]}` }));
        });
      }

      const node = element("section", { className: "play-task", dataset: { task: name } },
        element("div", { className: "play-head" }, element("h3", { textContent: name }), own.node, accuracy),
        element("div", { className: "play-row" }, control.node, element("label", { className: "play-merged" }, merged, " merged"), alone),
        element("div", { className: "play-pictures" }, ...pictures.map((picture) => picture.node)),
      );
      return { node, draw, show, refresh: () => {
        control.set(mean(state.coefficients[task]));
        control.input.disabled = !state.merged[task];
        merged.checked = state.merged[task];
        node.classList.toggle("left-out", !state.merged[task]);
      } };
    }

    // ------------------------------------------------------------------------------------------ depths

    const byDepth = (() => {
      const task = element("select", { id: "play-depth-task" }, element("option", { value: "", textContent: "all tasks" }),
        ...header.tasks.map((name, k) => element("option", { value: k, textContent: name })));
      const chosen = () => (task.value === "" ? [...header.tasks.keys()] : [Number(task.value)]);
      const called = (name) => name.replace(/^block_(\d+)$/, (_, n) => `block ${Number(n) + 1}`);
      const controls = header.depths.map((name, depth) => slider(called(name), DEPTH_SPAN, STEP, signed, (value) => {
        for (const k of chosen()) move(k, depth, value);
        changed();
      }));
      const refresh = () => controls.forEach((control, depth) => {
        const concerned = [...tensors.keys()].filter((l) => tensors[l] === depth);
        control.set(mean(chosen().map((k) => mean(concerned.map((l) => state.coefficients[k][l])))));
      });
      task.addEventListener("change", refresh);
      const node = element("details", { className: "play-depths" }, element("summary", { textContent: "λ by depth" }),
        element("div", { className: "play-field" }, element("label", { htmlFor: task.id, textContent: "of" }), task),
        element("div", { className: "play-grid" }, ...controls.map((control) => control.node)));
      return { node, refresh };
    })();

    const cards = header.tasks.map((_, k) => card(k));
    root.append(
      element("div", { className: "play-panel" }, element("div", { className: "play-controls" },
        element("div", { className: "play-field" }, element("label", { htmlFor: select.id, textContent: "start from" }), select),
        element("div", { className: "play-grid" }, all.node, noise.node)),
        element("div", { className: "play-result" },
          element("div", { className: "play-head" }, element("span", { textContent: "average over all tasks" }), bar.node, average, entropy),
          status)),
      byDepth.node,
      element("div", { className: "play-tasks" }, ...cards.map((one) => one.node)));
    cards.forEach((one) => one.draw());
    noise.set(0);
    start("arithmetic");
  }

  // A bar that a screen reader need not read: the number stands beside it.
  function meter() {
    const fill = element("span"), node = element("span", { className: "play-bar" }, fill);
    node.setAttribute("aria-hidden", "true");
    return { node, set: (share) => { fill.style.width = `${100 * share}%`; } };
  }

  document.addEventListener("DOMContentLoaded", async () => {
    const root = document.getElementById("play");
    if (!root) return;
    root.replaceChildren();
    try {
      const { header } = window.adamergingWorld;
      build(root, header, await adamergingEngine().unpack(window.adamergingWorld));
    } catch (error) {
      root.replaceChildren(element("p", { textContent: `This browser cannot run the encoder (${error.message}); the tables below say what it would show.` }));
      throw error;
    }
  });
})();
