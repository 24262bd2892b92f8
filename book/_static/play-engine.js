// The drawn world's encoder in plain JavaScript: merging, noise, and the forward pass of a small vision transformer.
// One function without anything from outside, so that its source text is also the source of a worker.
function adamergingEngine() {
  "use strict";
  const FIRST_CHARACTER = 0x3400; // as in adamerging_study/book/play/packing.py
  const CHUNK = 8; // images at once

  // ------------------------------------------------------------------------------------------------ reading

  function bytesOf(text, count) {
    const bytes = new Uint8Array(count);
    for (let i = 0, at = 0, held = 0, bits = 0; at < count; i++) {
      held = (held << 15) | (text.charCodeAt(i) - FIRST_CHARACTER);
      bits += 15;
      while (bits >= 8 && at < count) {
        bits -= 8;
        bytes[at++] = held >> bits;
      }
      held &= (1 << bits) - 1;
    }
    return bytes;
  }

  async function unpack({ header, text }) {
    const packed = new Blob([bytesOf(text, header.bytes)]);
    return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  }

  // ------------------------------------------------------------------------------------------------ noise

  // Gaussian numbers that depend on a seed alone, so that noise stays the same from one merge to the next (mulberry32).
  function gaussians(count, seed) {
    const values = new Float32Array(count);
    let state = seed | 0;
    const uniform = () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    for (let i = 0; i < count; i += 2) {
      const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
      const angle = 2 * Math.PI * uniform();
      values[i] = radius * Math.cos(angle);
      if (i + 1 < count) values[i + 1] = radius * Math.sin(angle);
    }
    return values;
  }

  // Pixels 0 to 255 with noise whose standard deviation is a share of the whole range.
  function addNoise(pixels, share, seed) {
    if (!share) return pixels;
    const noise = gaussians(pixels.length, seed);
    return Uint8ClampedArray.from(pixels, (value, i) => value + 255 * share * noise[i]);
  }

  // ------------------------------------------------------------------------------------------------ arithmetic

  // y[M, N] = x[M, K] W[N, K]ᵀ + bias, compiled by wat2wasm from play-linear.wat, which gains much over JavaScript.
  const LINEAR =
    "AGFzbQEAAAABEAJgAXsBfWAHf39/f39/fwACDwEDb3duBm1lbW9yeQIAAQMDAgABBwoBBmxpbmVhcgABCoUFAhkAIAD9HwAgAP0fAZIgAP0fAiAA" +
    "/R8DkpIL6AQCB38LeyAGQQJ0IQkDQEEAIQgDQCABIAcgCWxqIQogAiAIIAlsaiELIAogCWohDP0MAAAAAAAAAAAAAAAAAAAAACEO/QwAAAAAAAAA" +
    "AAAAAAAAAAAAIQ/9DAAAAAAAAAAAAAAAAAAAAAAhEP0MAAAAAAAAAAAAAAAAAAAAACER/QwAAAAAAAAAAAAAAAAAAAAAIRL9DAAAAAAAAAAAAAAA" +
    "AAAAAAAhE/0MAAAAAAAAAAAAAAAAAAAAACEU/QwAAAAAAAAAAAAAAAAAAAAAIRUDQCAL/QAEACEWIAsgCWr9AAQAIRcgCv0ABAAhGCAOIBggFv3m" +
    "Af3kASEOIA8gGCAX/eYB/eQBIQ8gCiAJav0ABAAhGCAQIBggFv3mAf3kASEQIBEgGCAX/eYB/eQBIREgCiAJQQF0av0ABAAhGCASIBggFv3mAf3k" +
    "ASESIBMgGCAX/eYB/eQBIRMgCiAJQQNsav0ABAAhGCAUIBggFv3mAf3kASEUIBUgGCAX/eYB/eQBIRUgCkEQaiEKIAtBEGohCyAKIAxJDQALIAMg" +
    "CEECdGohCiAAIAcgBWwgCGpBAnRqIQ0gDSAOEAAgCioCAJI4AgAgDSAPEAAgCioCBJI4AgQgDSAFQQJ0aiENIA0gEBAAIAoqAgCSOAIAIA0gERAA" +
    "IAoqAgSSOAIEIA0gBUECdGohDSANIBIQACAKKgIAkjgCACANIBMQACAKKgIEkjgCBCANIAVBAnRqIQ0gDSAUEAAgCioCAJI4AgAgDSAVEAAgCioC" +
    "BJI4AgQgCEECaiEIIAggBUkNAAsgB0EEaiEHIAcgBEkNAAsLAJcBBG5hbWUBBgEAA3N1bQJtAgABAAF2ARkAAXkBAXgCAXcDBGJpYXMEAU0FAU4G" +
    "AUsHAW0IAW4JA3JvdwoBcAsBcQwDZW5kDQJ0bw4DYTAwDwNhMDEQA2ExMBEDYTExEgNhMjATA2EyMRQDYTMwFQNhMzEWAncwFwJ3MRgBdgMZAQED" +
    "AARyb3dzAQdjb2x1bW5zAgVpbm5lcg==";

  // The compiled function in a memory of so many numbers; all its arguments are addresses and sizes.
  function compiled(numbers) {
    const memory = new WebAssembly.Memory({ initial: Math.ceil((4 * numbers) / 65536) });
    const module = new WebAssembly.Module(Uint8Array.from(atob(LINEAR), (c) => c.charCodeAt(0)));
    return { buffer: memory.buffer, ...new WebAssembly.Instance(module, { own: { memory } }).exports };
  }

  function layerNorm(y, x, weights, scale, shift, M, N) {
    for (let m = 0; m < M; m++) {
      const o = m * N;
      let mean = 0, variance = 0;
      for (let n = 0; n < N; n++) mean += x[o + n];
      mean /= N;
      for (let n = 0; n < N; n++) variance += (x[o + n] - mean) * (x[o + n] - mean);
      const factor = 1 / Math.sqrt(variance / N + 1e-5);
      for (let n = 0; n < N; n++) y[o + n] = (x[o + n] - mean) * factor * weights[scale + n] + weights[shift + n];
    }
  }

  // Φ, the normal distribution function, at steps of 1/512 and linear between them: off by less than 2e-7.
  const STEPS = 512, END = 6;
  const normal = new Float64Array(2 * END * STEPS + 2);
  {
    // Simpson's rule from the middle outwards, where Φ is one half.
    const density = (z) => Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI);
    const h = 1 / STEPS, middle = END * STEPS;
    normal[middle] = 0.5;
    for (let i = 0; i <= middle; i++) {
      const z = i * h, part = (h / 6) * (density(z) + 4 * density(z + h / 2) + density(z + h));
      normal[middle + i + 1] = normal[middle + i] + part;
      if (i < middle) normal[middle - i - 1] = normal[middle - i] - part;
    }
  }
  function gelu(x, count) {
    for (let i = 0; i < count; i++) {
      const v = x[i];
      if (v >= END) continue;
      if (v <= -END) { x[i] = 0; continue; }
      const at = (v + END) * STEPS, j = at | 0;
      x[i] = v * (normal[j] + (at - j) * (normal[j + 1] - normal[j]));
    }
  }

  // ------------------------------------------------------------------------------------------------ the world

  function open(header, buffer) {
    const floats = (part) => new Float32Array(buffer, part[0], (part[1] - part[0]) / 4);
    const bytes = (part) => new Uint8Array(buffer, part[0], part[1] - part[0]);
    const { tensors, parts, tasks, images } = header;
    const scales = floats(parts.scales), heads = floats(parts.heads);
    const pixels = bytes(parts.images), labels = bytes(parts.labels);
    const codes = [...tasks, ""].map((_, n) => bytes(parts[`model ${n}`]));
    const rows = tensors.reduce((sum, t) => sum + t.rows, 0);
    const at = {}; // tensor name → where it begins among all weights
    let size = 0;
    for (const t of tensors) {
      at[t.name] = size;
      size += t.rows * t.length;
    }
    const side = 32, patch = 8, grid = side / patch, tokens = grid * grid + 1;
    const width = tensors.find((t) => t.name === "class_embedding").length;
    const layers = new Set(tensors.map((t) => /resblocks\.(\d+)/.exec(t.name)?.[1]).filter(Boolean)).size;
    const block = (layer, name) => at[`transformer.resblocks.${layer}.${name}`];
    const headStarts = header.classes.map((_, k) => width * header.classes.slice(0, k).flat().length);
    const M = CHUNK * tokens, patchLength = 3 * patch * patch, wide = 4 * width;
    const sizes = [wide, size, CHUNK * (tokens - 1) * patchLength, CHUNK * (tokens - 1) * width, M * width, M * width, M * wide];
    const kernel = compiled(sizes.reduce((sum, count) => sum + count, 0));
    let end = 0; // the first numbers stay zero: the bias of what has none
    const [nothing, weights, patched, embedded, x, y, hidden] = sizes.map((count) => new Float32Array(kernel.buffer, 4 * ((end += count) - count), count));
    const placeOf = (start) => weights.byteOffset + 4 * start;

    // θ = θ0 + Σ λ_k T_k, tensor by tensor; λ[k] has one number per tensor, or one for all.
    function merge(coefficients) {
      let row = 0, o = 0;
      const read = new Array(codes.length).fill(0);
      tensors.forEach((t, index) => {
        const lambdas = coefficients.map((own) => (own.length === 1 ? own[0] : own[index]));
        for (let r = 0; r < t.rows; r++, row++, o += t.length) {
          const base = codes[0], scale = scales[row], from = read[0] + r * t.length;
          for (let j = 0; j < t.length; j++) weights[o + j] = scale * ((base[from + j] << 24) >> 24);
          lambdas.forEach((lambda, k) => {
            if (lambda) addRow(codes[k + 1], read[k + 1], r, t, lambda * scales[(k + 1) * rows + row], o);
          });
        }
        read[0] += t.rows * t.length;
        for (let k = 1; k < codes.length; k++) read[k] += (t.rows * t.length * t.bits) / 8;
      });
    }

    function addRow(own, start, r, t, factor, o) {
      if (t.bits === 8) {
        const from = start + r * t.length;
        for (let j = 0; j < t.length; j++) weights[o + j] += factor * ((own[from + j] << 24) >> 24);
        return;
      }
      const from = start + (r * t.length) / 2;
      for (let j = 0; j < t.length / 2; j++) {
        const pair = own[from + j];
        weights[o + 2 * j] += factor * ((pair & 15) - 8);
        weights[o + 2 * j + 1] += factor * ((pair >> 4) - 8);
      }
    }

    const pixelsOf = (task, image) => {
      const start = (task * images + image) * 3 * side * side;
      return pixels.subarray(start, start + 3 * side * side);
    };
    const noisy = (task, image, share) => addNoise(pixelsOf(task, image), share, task * images + image + 1);

    // Images as patches, [images × 16, 3 × 8 × 8], normalised.
    function cut(task, from, count, share) {
      let o = 0;
      for (let i = 0; i < count; i++) {
        const values = noisy(task, from + i, share);
        for (let p = 0; p < grid * grid; p++) {
          const top = Math.floor(p / grid) * patch, left = (p % grid) * patch;
          for (let c = 0; c < 3; c++) for (let v = 0; v < patch; v++) for (let u = 0; u < patch; u++) {
            patched[o++] = (values[c * side * side + (top + v) * side + left + u] / 255 - header.mean) / header.std;
          }
        }
      }
    }

    // Softmax attention, head by head; `| 0` keeps addresses whole numbers for the compiler.
    function attention(out, qkv, count) {
      const length = (width / header.attentionHeads) | 0, row = (3 * width) | 0, scale = 1 / Math.sqrt(length);
      const shares = new Float64Array(tokens);
      for (let i = 0; i < count; i++) for (let h = 0; h < header.attentionHeads; h++) {
        const first = (i * tokens * row + h * length) | 0;
        for (let a = 0; a < tokens; a++) {
          const q = (first + a * row) | 0, o = ((i * tokens + a) * width + h * length) | 0;
          let sum = 0;
          for (let b = 0; b < tokens; b++) {
            const k = (first + b * row + width) | 0;
            let dot = 0;
            for (let d = 0; d < length; d++) dot += qkv[q + d] * qkv[k + d];
            sum += shares[b] = Math.exp(dot * scale);
          }
          for (let d = 0; d < length; d++) {
            let value = 0;
            for (let b = 0, v = (first + 2 * width + d) | 0; b < tokens; b++, v += row) value += shares[b] * qkv[v];
            out[o + d] = value / sum;
          }
        }
      }
    }

    const add = (x, y, count) => { for (let i = 0; i < count; i++) x[i] += y[i]; };

    // Unit-length features of the merged encoder, [images, width], of at most CHUNK images; past `count` they are leftovers.
    function features(task, from, count, share) {
      cut(task, from, count, share);
      kernel.linear(embedded.byteOffset, patched.byteOffset, placeOf(at["conv1.weight"]), nothing.byteOffset, CHUNK * (tokens - 1), width, patchLength);
      for (let i = 0; i < CHUNK; i++) for (let t = 0; t < tokens; t++) for (let n = 0; n < width; n++) {
        const own = t ? embedded[(i * (tokens - 1) + t - 1) * width + n] : weights[at.class_embedding + n];
        y[(i * tokens + t) * width + n] = own + weights[at.positional_embedding + t * width + n];
      }
      layerNorm(x, y, weights, at["ln_pre.weight"], at["ln_pre.bias"], M, width);
      const dense = (to, given, layer, weight, bias, N, K) =>
        kernel.linear(to.byteOffset, given.byteOffset, placeOf(block(layer, weight)), placeOf(block(layer, bias)), M, N, K);
      for (let l = 0; l < layers; l++) {
        layerNorm(y, x, weights, block(l, "ln_1.weight"), block(l, "ln_1.bias"), M, width);
        dense(hidden, y, l, "attn.in_proj_weight", "attn.in_proj_bias", 3 * width, width);
        attention(y, hidden, CHUNK);
        dense(hidden, y, l, "attn.out_proj.weight", "attn.out_proj.bias", width, width);
        add(x, hidden, M * width);
        layerNorm(y, x, weights, block(l, "ln_2.weight"), block(l, "ln_2.bias"), M, width);
        dense(hidden, y, l, "mlp.c_fc.weight", "mlp.c_fc.bias", wide, width);
        gelu(hidden, M * wide);
        dense(y, hidden, l, "mlp.c_proj.weight", "mlp.c_proj.bias", width, wide);
        add(x, y, M * width);
      }
      const first = new Float32Array(count * width), found = new Float32Array(count * width);
      for (let i = 0; i < count; i++) first.set(x.subarray(i * tokens * width, (i * tokens + 1) * width), i * width);
      layerNorm(first, first, weights, at["ln_post.weight"], at["ln_post.bias"], count, width);
      for (let i = 0; i < count; i++) for (let k = 0; k < width; k++) for (let n = 0; n < width; n++) {
        found[i * width + n] += first[i * width + k] * weights[at.proj + k * width + n];
      }
      for (let i = 0; i < count; i++) {
        const own = found.subarray(i * width, (i + 1) * width), norm = Math.hypot(...own);
        for (let n = 0; n < width; n++) own[n] /= norm;
      }
      return found;
    }

    // Logits of at most CHUNK images.
    function logits(task, from, count, share) {
      const unit = features(task, from, count, share);
      return Array.from({ length: count }, (_, i) => header.classes[task].map((_, c) => {
        const head = headStarts[task] + c * width;
        let dot = 0;
        for (let n = 0; n < width; n++) dot += unit[i * width + n] * heads[head + n];
        return dot;
      }));
    }

    // What the merged model says of at most CHUNK images of a task: classes, and each prediction's entropy in nats.
    function classify(task, from, count, share) {
      const predicted = [], entropy = [];
      for (const row of logits(task, from, count, share)) {
        const top = Math.max(...row), sum = row.reduce((all, value) => all + Math.exp(value - top), 0);
        predicted.push(row.indexOf(top));
        entropy.push(row.reduce((all, value) => all - (Math.exp(value - top) / sum) * (value - top - Math.log(sum)), 0));
      }
      return { predicted, entropy };
    }

    return { merge, logits, classify, noisy, labelsOf: (task) => labels.subarray(task * images, (task + 1) * images) };
  }

  // ------------------------------------------------------------------------------------------------ as a server

  // Answers {id, coefficients, share, tasks}: the first images of each task, then the next ones. Between two parts it looks
  // whether something newer was asked for. It works alike in a worker and in the page itself.
  function serve(post) {
    let world = null, latest = -1, images = 0;
    const pause = () => new Promise((resolve) => setTimeout(resolve));
    async function answer({ id, coefficients, share, tasks }) {
      world.merge(coefficients);
      for (let from = 0; from < images; from += CHUNK) for (const task of tasks) {
        post({ id, task, from, ...world.classify(task, from, Math.min(CHUNK, images - from), share) });
        await pause();
        if (id !== latest) return;
      }
    }
    return (message) => {
      if (message.header) {
        images = message.header.images;
        world = open(message.header, message.buffer);
        return undefined;
      }
      latest = message.id;
      return answer(message);
    };
  }

  return { unpack, addNoise, gaussians, open, serve };
}
