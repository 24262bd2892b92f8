// The drawn world's encoder in plain JavaScript: merging, noise, and the forward pass of a small vision transformer.
// One function without anything from outside, so that its source text is also the source of a worker.
function adamergingEngine() {
  "use strict";
  const FIRST_CHARACTER = 0x3400; // as in adamerging_study/book/play/packing.py

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

  // y[M, N] = x[M, K] W[N, K]ᵀ + bias, four rows and four columns at a time; M and N are multiples of four.
  function linear(y, x, weights, w, bias, b, M, N, K) {
    for (let m = 0; m < M; m += 4) {
      const x0 = m * K, x1 = x0 + K, x2 = x1 + K, x3 = x2 + K;
      for (let n = 0; n < N; n += 4) {
        const w0 = w + n * K, w1 = w0 + K, w2 = w1 + K, w3 = w2 + K;
        let a00 = 0, a01 = 0, a02 = 0, a03 = 0, a10 = 0, a11 = 0, a12 = 0, a13 = 0;
        let a20 = 0, a21 = 0, a22 = 0, a23 = 0, a30 = 0, a31 = 0, a32 = 0, a33 = 0;
        for (let k = 0; k < K; k++) {
          const p = x[x0 + k], q = x[x1 + k], r = x[x2 + k], s = x[x3 + k];
          const c = weights[w0 + k], d = weights[w1 + k], e = weights[w2 + k], f = weights[w3 + k];
          a00 += p * c; a01 += p * d; a02 += p * e; a03 += p * f;
          a10 += q * c; a11 += q * d; a12 += q * e; a13 += q * f;
          a20 += r * c; a21 += r * d; a22 += r * e; a23 += r * f;
          a30 += s * c; a31 += s * d; a32 += s * e; a33 += s * f;
        }
        const b0 = bias ? bias[b + n] : 0, b1 = bias ? bias[b + n + 1] : 0;
        const b2 = bias ? bias[b + n + 2] : 0, b3 = bias ? bias[b + n + 3] : 0;
        let o = m * N + n;
        y[o] = a00 + b0; y[o + 1] = a01 + b1; y[o + 2] = a02 + b2; y[o + 3] = a03 + b3;
        o += N;
        y[o] = a10 + b0; y[o + 1] = a11 + b1; y[o + 2] = a12 + b2; y[o + 3] = a13 + b3;
        o += N;
        y[o] = a20 + b0; y[o + 1] = a21 + b1; y[o + 2] = a22 + b2; y[o + 3] = a23 + b3;
        o += N;
        y[o] = a30 + b0; y[o + 1] = a31 + b1; y[o + 2] = a32 + b2; y[o + 3] = a33 + b3;
      }
    }
  }

  function layerNorm(y, x, weights, scale, shift, M, N) {
    for (let m = 0; m < M; m++) {
      const o = m * N;
      let mean = 0, variance = 0;
      for (let n = 0; n < N; n++) mean += x[o + n];
      mean /= N;
      for (let n = 0; n < N; n++) variance += (x[o + n] - mean) ** 2;
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
    const weights = new Float32Array(size);

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
    function patches(task, from, count, share) {
      const length = 3 * patch * patch, found = new Float32Array(count * grid * grid * length);
      for (let i = 0; i < count; i++) {
        const values = noisy(task, from + i, share);
        for (let p = 0; p < grid * grid; p++) {
          const top = Math.floor(p / grid) * patch, left = (p % grid) * patch;
          let o = (i * grid * grid + p) * length;
          for (let c = 0; c < 3; c++) for (let y = 0; y < patch; y++) for (let x = 0; x < patch; x++) {
            found[o++] = (values[c * side * side + (top + y) * side + left + x] / 255 - header.mean) / header.std;
          }
        }
      }
      return found;
    }

    function attention(out, qkv, count) {
      const size = width / header.attentionHeads, scale = 1 / Math.sqrt(size), row = 3 * width;
      const shares = new Float64Array(tokens);
      for (let i = 0; i < count; i++) for (let h = 0; h < header.attentionHeads; h++) for (let a = 0; a < tokens; a++) {
        const q = (i * tokens + a) * row + h * size;
        let sum = 0;
        for (let b = 0; b < tokens; b++) {
          const k = (i * tokens + b) * row + width + h * size;
          let dot = 0;
          for (let d = 0; d < size; d++) dot += qkv[q + d] * qkv[k + d];
          sum += shares[b] = Math.exp(dot * scale);
        }
        const o = (i * tokens + a) * width + h * size;
        for (let d = 0; d < size; d++) out[o + d] = 0;
        for (let b = 0; b < tokens; b++) {
          const v = (i * tokens + b) * row + 2 * width + h * size, share = shares[b] / sum;
          for (let d = 0; d < size; d++) out[o + d] += share * qkv[v + d];
        }
      }
    }

    const add = (x, y, count) => { for (let i = 0; i < count; i++) x[i] += y[i]; };

    // Unit-length features of the merged encoder, [images, width]; count is a multiple of four.
    function features(task, from, count, share) {
      const M = count * tokens, wide = 4 * width;
      const x = new Float32Array(M * width), y = new Float32Array(M * width), hidden = new Float32Array(M * wide);
      const embedded = new Float32Array(count * (tokens - 1) * width);
      linear(embedded, patches(task, from, count, share), weights, at["conv1.weight"], null, 0, count * (tokens - 1), width, 3 * patch * patch);
      for (let i = 0; i < count; i++) for (let t = 0; t < tokens; t++) for (let n = 0; n < width; n++) {
        const own = t ? embedded[(i * (tokens - 1) + t - 1) * width + n] : weights[at.class_embedding + n];
        y[(i * tokens + t) * width + n] = own + weights[at.positional_embedding + t * width + n];
      }
      layerNorm(x, y, weights, at["ln_pre.weight"], at["ln_pre.bias"], M, width);
      const dense = (to, given, layer, weight, bias, N, K) =>
        linear(to, given, weights, block(layer, weight), weights, block(layer, bias), M, N, K);
      for (let l = 0; l < layers; l++) {
        layerNorm(y, x, weights, block(l, "ln_1.weight"), block(l, "ln_1.bias"), M, width);
        dense(hidden, y, l, "attn.in_proj_weight", "attn.in_proj_bias", 3 * width, width);
        attention(y, hidden, count);
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

    function logits(task, from, count, share) {
      const given = Math.ceil(count / 4) * 4, start = Math.min(from, images - given), found = [];
      const unit = features(task, start, given, share);
      for (let i = from - start; i < from - start + count; i++) {
        found.push(header.classes[task].map((_, c) => {
          const head = headStarts[task] + c * width;
          let dot = 0;
          for (let n = 0; n < width; n++) dot += unit[i * width + n] * heads[head + n];
          return dot;
        }));
      }
      return found;
    }

    // What the merged model says of some images of a task: classes, and the entropy of each prediction in nats.
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

  // Answers {id, coefficients, share, tasks} image by image: those shown first, then the others, eight at a time. Between
  // two parts it looks whether something newer was asked for. `post` and the given handler work alike in a worker and in
  // the page itself.
  function serve(post) {
    let world = null, latest = -1;
    const header = {};
    const pause = () => new Promise((resolve) => setTimeout(resolve));
    async function answer({ id, coefficients, share, tasks }) {
      world.merge(coefficients);
      const { images, shown } = header.own;
      const step = 8, spans = [[0, shown]];
      for (let from = shown; from < images; from += step) spans.push([from, Math.min(step, images - from)]);
      for (const [from, count] of spans) for (const task of tasks) {
        post({ id, task, from, ...world.classify(task, from, count, share) });
        await pause();
        if (id !== latest) return;
      }
    }
    return (message) => {
      if (message.header) {
        header.own = message.header;
        world = open(message.header, message.buffer);
        return undefined;
      }
      latest = message.id;
      return answer(message);
    };
  }

  return { unpack, addNoise, gaussians, open, serve };
}
