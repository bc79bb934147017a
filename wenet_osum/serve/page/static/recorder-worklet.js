// Hands the microphone's samples on to the page, in chunks of about a twelfth of a second.

const CHUNK = 4096;

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.chunk = new Float32Array(CHUNK);
    this.filled = 0;
    this.open = true;
    this.port.onmessage = () => {
      this.port.postMessage(this.chunk.slice(0, this.filled));
      this.port.postMessage(null); // that was the last
      this.open = false;
    };
  }

  process([input]) {
    const samples = input[0];
    if (!samples || !this.open) return this.open;
    for (let at = 0; at < samples.length; ) {
      const part = samples.subarray(at, at + CHUNK - this.filled);
      this.chunk.set(part, this.filled);
      this.filled += part.length;
      at += part.length;
      if (this.filled === CHUNK) {
        this.port.postMessage(this.chunk.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor('recorder', Recorder);
