// Samples of 16 kHz, mono, 16 bit: what every recording is sent as.

export const RATE = 16000;

/** A WAV file of samples (Float32Array, -1 to 1). */
export function encodeWav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const name = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  name(0, 'RIFF');
  view.setUint32(4, 36 + 2 * samples.length, true);
  name(8, 'WAVEfmt ');
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // mono
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  name(36, 'data');
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, i) => view.setInt16(44 + 2 * i, Math.round(32767 * Math.max(-1, Math.min(1, x))), true));
  return view.buffer;
}

/** What a browser can decode of a file: an AudioBuffer at `rate`. Its decoder resamples better than an audio graph
 * does, and holds no more samples than are asked for. */
export function decode(bytes, rate) {
  return new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes);
}

/** Samples of one rate as a WAV file of 16 kHz. */
export async function resampledWav(samples, rate) {
  if (rate === RATE) return encodeWav(samples, RATE);
  const buffer = await decode(encodeWav(samples, rate), RATE);
  return encodeWav(buffer.getChannelData(0), RATE);
}
