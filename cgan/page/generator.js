/** The generator's forward pass; weights.py packs its layers, all of them transposed convolutions. */

import { bytesOf, listOf, RUN, SHAPE } from "./page_data.js";

/**
 * @param {ArrayLike<number>} latent latent_dim numbers
 * @param {ArrayLike<number>} condition of a class, see `conditionOf`, or a mix of several
 * @returns {Uint8Array} 0–255, [channels, height, width]
 */
export function forward(latent, condition) {
  const input = { width: 1, values: Float64Array.of(...latent, ...condition) };
  const { values } = LAYERS.reduce((map, layer) => apply(layer, map), input);
  const pixels = SHAPE.height * SHAPE.width;
  const drawing = new Uint8Array(pixels * SHAPE.channels);
  for (let pixel = 0; pixel < pixels; pixel++) {
    for (let plane = 0; plane < SHAPE.channels; plane++) {
      const value = values[pixel * SHAPE.channels + plane];
      drawing[plane * pixels + pixel] = Math.round((value + 1) * 127.5);
    }
  }
  return drawing;
}

/** What the layers see of a class. Entries may be averaged to mix classes. */
export function conditionOf(label) {
  const oneHot = new Float64Array(SHAPE.classes);
  oneHot[label] = 1;
  return oneHot;
}

/** The condition at `part` (0–1) of the way from one class to another. */
export function mixedCondition(start, end, part) {
  const to = conditionOf(end);
  return conditionOf(start).map((value, i) => value + part * (to[i] - value));
}

/**
 * Output from input: each output pixel is the sum of its taps, a pixel of the input times a matrix. What is
 * not zero of the taps (half of them, after ReLU) is listed first, and then goes through four outputs at once.
 */
function apply(layer, input) {
  const { rows, columns, kernelColumns, inputs, outputs, weight, bias, activation } = layer;
  const values = new Float64Array(rows.length * columns.length * outputs);
  const factors = new Float64Array(weight.length / outputs);
  const places = new Int32Array(factors.length);
  let at = 0;
  for (const row of rows) {
    for (const column of columns) {
      let count = 0;
      for (let r = 0; r < row.length; r += 2) {
        for (let c = 0; c < column.length; c += 2) {
          const pixel = (row[r] * input.width + column[c]) * inputs;
          const matrix = (row[r + 1] * kernelColumns + column[c + 1]) * inputs;
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
  return { width: columns.length, values };
}

const relu = (value) => (value > 0 ? value : 0);

function unpackedLayers() {
  const numbers = new Float32Array(bytesOf(RUN.weights).buffer);
  let [height, width, at] = [1, 1, 0];
  return RUN.layers.map(({ shape, stride, padding }, number) => {
    const [kernelRows, kernelColumns, inputs, outputs] = shape;
    const last = number === RUN.layers.length - 1;
    // Sizes that are no multiple of the doublings are drawn larger and cropped.
    const rows = tapsOf(height, kernelRows, stride, padding, last ? SHAPE.height : Infinity);
    const columns = tapsOf(width, kernelColumns, stride, padding, last ? SHAPE.width : Infinity);
    [height, width] = [rows.length, columns.length];
    const size = kernelRows * kernelColumns * inputs * outputs;
    const weight = Float64Array.from(numbers.subarray(at, at += size));
    const bias = numbers.subarray(at, at += outputs);
    const activation = last ? Math.tanh : relu;
    return { rows, columns, kernelColumns, inputs, outputs, weight, bias, activation };
  });
}

/** Along one side: for each output pixel, its pairs of input pixel and place in the kernel, in one list. */
function tapsOf(inputs, kernel, stride, padding, most) {
  const outputs = Math.min(most, stride * (inputs - 1) + kernel - 2 * padding);
  return listOf(outputs, (out) =>
    listOf(kernel, (tap) => [(out + padding - tap) / stride, tap])
      .filter(([at]) => Number.isInteger(at) && at >= 0 && at < inputs)
      .flat());
}

const LAYERS = unpackedLayers();
