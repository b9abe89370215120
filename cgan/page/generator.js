/**
 * The generator's forward pass, from the weights that travel in the page. weights.py, which packs them,
 * describes the layers.
 */

export const RUN = JSON.parse(document.getElementById("page-data").textContent);
export const SHAPE = RUN.architecture;
/** Bytes of one drawing: colour planes one after the other, each row by row. */
export const DRAWING_SIZE = SHAPE.channels * SHAPE.height * SHAPE.width;

/**
 * @param {ArrayLike<number>} latent latent_dim numbers
 * @param {ArrayLike<number>} condition of a class, see `conditionOf`, or a mix of several
 * @returns {Uint8Array} 0–255, [channels, height, width]
 */
export function forward(latent, condition) {
  let map = { height: 1, width: 1, values: Float64Array.of(...latent, ...condition) };
  for (const layer of LAYERS) map = apply(layer, map);
  const pixels = SHAPE.height * SHAPE.width;
  const drawing = new Uint8Array(DRAWING_SIZE);
  for (let pixel = 0; pixel < pixels; pixel++) {
    for (let plane = 0; plane < SHAPE.channels; plane++) {
      const value = map.values[pixel * SHAPE.channels + plane];
      drawing[plane * pixels + pixel] = Math.round((value + 1) * 127.5);
    }
  }
  return drawing;
}

/** What the layers see of a class. Entries may be averaged to mix classes. */
export function conditionOf(label) {
  const table = TENSORS.embedding;
  if (table) return table.values.slice(label * table.shape[1], (label + 1) * table.shape[1]);
  const oneHot = new Float64Array(SHAPE.classes);
  oneHot[label] = 1;
  return oneHot;
}

/** The condition at `part` (0–1) of the way from one class to another. */
export function mixedCondition(start, end, part) {
  const to = conditionOf(end);
  return conditionOf(start).map((value, i) => value + part * (to[i] - value));
}

// -- Layers ----------------------------------------------------------------------------------------

/**
 * Output from input: each output pixel is the sum of its taps, a pixel of the input times a matrix. What is
 * not zero of the taps (half of them, after ReLU) is listed first, and then goes through four outputs at once.
 */
function apply(layer, input) {
  const { rows, columns, kernel, inputs, outputs, weight, bias, activation } = layer;
  const values = new Float64Array(rows.length * columns.length * outputs);
  const factors = new Float64Array(kernel * kernel * inputs);
  const places = new Int32Array(factors.length);
  let at = 0;
  for (const row of rows) {
    for (const column of columns) {
      let count = 0;
      for (let r = 0; r < row.length; r += 2) {
        for (let c = 0; c < column.length; c += 2) {
          const pixel = (row[r] * input.width + column[c]) * inputs;
          const matrix = (row[r + 1] * kernel + column[c + 1]) * inputs;
          for (let i = 0; i < inputs; i++) {
            const value = input.values[pixel + i];
            if (value === 0) continue;
            factors[count] = value;
            places[count++] = (matrix + i) * outputs;
          }
        }
      }
      let o = 0;
      for (; o + 3 < outputs; o += 4) {
        let s0 = bias[o], s1 = bias[o + 1], s2 = bias[o + 2], s3 = bias[o + 3];
        for (let n = 0; n < count; n++) {
          const factor = factors[n], place = places[n] + o;
          s0 += factor * weight[place];
          s1 += factor * weight[place + 1];
          s2 += factor * weight[place + 2];
          s3 += factor * weight[place + 3];
        }
        values[at++] = activation(s0);
        values[at++] = activation(s1);
        values[at++] = activation(s2);
        values[at++] = activation(s3);
      }
      for (; o < outputs; o++) {
        let sum = bias[o];
        for (let n = 0; n < count; n++) sum += factors[n] * weight[places[n] + o];
        values[at++] = activation(sum);
      }
    }
  }
  return { height: layer.height, width: layer.width, values };
}

const relu = (value) => (value > 0 ? value : 0);

function buildLayers() {
  let [height, width] = [1, 1];
  return RUN.layers.map((facts, number) => {
    const last = number === RUN.layers.length - 1;
    const { values, shape: [kernel, , inputs, outputs] } = TENSORS[`${number}.weight`];
    const taps = TAPS[facts.form];
    // Sizes that are no multiple of the doublings are drawn larger and cropped.
    const rows = taps(height, kernel).slice(0, last ? SHAPE.height : undefined);
    const columns = taps(width, kernel).slice(0, last ? SHAPE.width : undefined);
    [height, width] = [facts.height ?? rows.length, facts.width ?? columns.length];
    return {
      rows,
      columns,
      height,
      width,
      kernel,
      inputs,
      outputs,
      weight: Float64Array.from(values),
      bias: TENSORS[`${number}.bias`].values,
      activation: facts.activation === "tanh" ? Math.tanh : relu,
    };
  });
}

/** Along one side: for each output pixel, its pairs of input pixel and place in the kernel, in one list. */
const TAPS = {
  linear: () => [[0, 0]],
  conv: (size, kernel) => tapsOf(size, size, kernel, (out, tap) => out + tap - (kernel >> 1)),
  upsample: (size, kernel) =>
    TAPS.conv(2 * size, kernel).map((taps) => taps.map((at, i) => i % 2 ? at : at >> 1)),
  deconv: (size, kernel) =>
    tapsOf(2 * (size - 1) + kernel - 2, size, kernel, (out, tap) => (out + 1 - tap) / 2),
};

function tapsOf(outputs, inputs, kernel, inputOf) {
  return listOf(outputs, (out) =>
    listOf(kernel, (tap) => [inputOf(out, tap), tap])
      .filter(([at]) => Number.isInteger(at) && at >= 0 && at < inputs)
      .flat());
}

function listOf(count, make) {
  return Array.from({ length: count }, (_, index) => make(index));
}

// -- safetensors -----------------------------------------------------------------------------------

function decodeBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** @returns {Record<string, {shape: number[], values: Float32Array}>} by name */
function readTensors(bytes) {
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  delete header.__metadata__;
  const tensors = {};
  for (const [name, { shape, data_offsets }] of Object.entries(header)) {
    const [start, end] = data_offsets.map((offset) => 8 + length + offset);
    tensors[name] = { shape, values: new Float32Array(bytes.buffer.slice(start, end)) };
  }
  return tensors;
}

const TENSORS = readTensors(decodeBase64(document.getElementById("weights").textContent));
const LAYERS = buildLayers();
