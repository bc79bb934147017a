// The microphone: samples through an AudioWorklet, sent as WAV, so that no codec of the browser is in between.

import { Problem } from './api.js';
import { resampledWav } from './wav.js';

/** Start to record.
 *
 * heard(samples, seconds): told of every chunk. most: seconds of the recording that are kept. Returns {stop(): the recording as a WAV Blob, or a Problem; drop()}. */
export async function startRecording(heard, most) {
  if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) throw new Problem('insecure');
  let stream;
  try {
    // The voice as it is: what a browser does for calls would change what is heard in it.
    const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    throw new Problem(error.name === 'NotFoundError' ? 'noMicrophone' : 'denied', [], error.message);
  }
  const context = new AudioContext();
  const release = () => {
    for (const track of stream.getTracks()) track.stop();
    if (context.state !== 'closed') context.close();
  };
  try {
    await context.audioWorklet.addModule(new URL('recorder-worklet.js', import.meta.url));
    await context.resume();
  } catch (error) {
    release();
    throw error;
  }
  const chunks = [];
  let length = 0;
  const recorder = new AudioWorkletNode(context, 'recorder', { numberOfOutputs: 0, channelCount: 1, channelCountMode: 'explicit' });
  const last = new Promise((resolve) => {
    recorder.port.onmessage = ({ data }) => {
      if (data === null) return resolve();
      chunks.push(data);
      length += data.length;
      heard(data, length / context.sampleRate);
    };
  });
  context.createMediaStreamSource(stream).connect(recorder);

  async function stop() {
    recorder.port.postMessage('stop');
    await last;
    release();
    const rate = context.sampleRate;
    if (length < 0.1 * rate) throw new Problem('short');
    const samples = new Float32Array(length);
    let at = 0;
    for (const chunk of chunks) {
      samples.set(chunk, at);
      at += chunk.length;
    }
    return new Blob([await resampledWav(samples.subarray(0, Math.floor(most * rate)), rate)], { type: 'audio/wav' });
  }
  return { stop, drop: release };
}
