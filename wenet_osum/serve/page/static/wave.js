// A recording to see and hear: waveform, playhead, play and seek.

import { clock, t } from './strings.js';
import { decode } from './wav.js';

const RATE = 8000; // enough for a picture
const MOST_BYTES = 64e6; // larger files are played without their picture, which would need them decoded whole
const BAR = 3; // CSS pixels, with the gap

/** The player of the elements in `root`. `moved(seconds)`: told whenever the position changes. */
export class Player {
  constructor(root, moved) {
    const find = (selector) => root.querySelector(selector);
    this.root = root;
    this.moved = moved;
    this.audio = find('audio');
    this.button = find('#play');
    this.wave = find('#wave');
    this.canvas = find('canvas');
    this.time = find('#time');
    this.mute = find('#mute');
    this.samples = null;
    this.seconds = 0;
    this.until = null; // where playing stops: the end of a word that was asked for
    this.button.addEventListener('click', () => this.toggle());
    this.audio.addEventListener('play', () => this.playing());
    this.audio.addEventListener('pause', () => this.show());
    this.audio.addEventListener('seeked', () => this.show());
    this.audio.addEventListener('loadedmetadata', () => this.know(this.audio.duration));
    this.audio.addEventListener('error', () => this.cannotPlay());
    this.wave.addEventListener('pointerdown', (event) => this.drag(event));
    this.wave.addEventListener('keydown', (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.wave);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.draw());
  }

  async load(file, name) {
    this.audio.pause();
    if (this.url) URL.revokeObjectURL(this.url);
    this.file = file;
    this.url = URL.createObjectURL(file);
    this.samples = null;
    this.seconds = 0;
    this.mute.hidden = true;
    this.button.disabled = false;
    this.root.querySelector('#name').textContent = name;
    this.root.hidden = false;
    this.audio.src = this.url;
    this.show();
    if (file.size > MOST_BYTES) return;
    try {
      const buffer = await decode(await file.arrayBuffer(), RATE);
      if (this.file !== file) return; // another one came meanwhile
      this.samples = buffer.getChannelData(0);
      this.know(buffer.duration);
    } catch {
      // no picture; whether it plays, the audio element says
    }
    this.draw();
  }

  know(seconds) {
    if (Number.isFinite(seconds) && seconds > 0) this.seconds = seconds;
    this.show();
  }

  cannotPlay() {
    if (!this.audio.src) return;
    this.button.disabled = true;
    this.mute.hidden = false;
  }

  toggle() {
    this.until = null;
    if (this.audio.paused) this.start();
    else this.audio.pause();
  }

  start() {
    this.audio.play().catch(() => {}); // a format it cannot play is told by the audio's own error
  }

  /** Play one word: from `start` to `end`, and long enough to be heard. */
  playSpan(start, end) {
    this.audio.currentTime = start;
    this.until = Math.max(end, start + 0.15);
    this.start();
  }

  seek(seconds) {
    this.until = null;
    this.audio.currentTime = Math.max(0, Math.min(seconds, this.seconds));
    this.show();
  }

  playing() {
    const step = () => {
      if (this.until !== null && this.audio.currentTime >= this.until) {
        this.until = null;
        this.audio.pause();
      }
      this.show();
      if (!this.audio.paused && !this.audio.ended) requestAnimationFrame(step);
    };
    step();
  }

  drag(event) {
    const to = ({ clientX }) => {
      const { left, width } = this.wave.getBoundingClientRect();
      this.seek(((clientX - left) / width) * this.seconds);
    };
    this.wave.setPointerCapture(event.pointerId);
    this.wave.addEventListener('pointermove', to);
    const end = () => this.wave.removeEventListener('pointermove', to);
    this.wave.addEventListener('pointerup', end, { once: true });
    this.wave.addEventListener('pointercancel', end, { once: true });
    to(event);
  }

  key(event) {
    const now = this.audio.currentTime;
    const step = Math.max(0.1, this.seconds / 50);
    const places = {
      ArrowRight: now + step,
      ArrowUp: now + step,
      ArrowLeft: now - step,
      ArrowDown: now - step,
      PageUp: now + 5 * step,
      PageDown: now - 5 * step,
      Home: 0,
      End: this.seconds,
    };
    if (event.key in places) this.seek(places[event.key]);
    else if (event.key === ' ') this.toggle();
    else return;
    event.preventDefault();
  }

  /** The position, in the time, the slider, the waveform and (by `moved`) the words. */
  show() {
    const now = this.audio.currentTime || 0;
    const playing = !this.audio.paused && !this.audio.ended;
    this.button.classList.toggle('playing', playing);
    this.button.dataset.label = playing ? 'pause' : 'play';
    this.button.setAttribute('aria-label', t(this.button.dataset.label));
    this.time.textContent = `${clock(now, 1)} / ${clock(this.seconds, 1)}`;
    this.wave.setAttribute('aria-valuemax', this.seconds.toFixed(1));
    this.wave.setAttribute('aria-valuenow', now.toFixed(1));
    this.wave.setAttribute('aria-valuetext', this.time.textContent);
    this.moved(now);
    this.draw();
  }

  draw() {
    const { width, height } = sized(this.canvas, this.wave);
    const style = getComputedStyle(this.wave);
    const context = this.canvas.getContext('2d');
    context.clearRect(0, 0, width, height);
    const at = this.seconds ? (width * this.audio.currentTime) / this.seconds : 0;
    const bars = Math.max(1, Math.floor(width / BAR));
    const levels = this.levels(bars);
    for (let i = 0; i < bars; i++) {
      const x = i * BAR;
      const tall = Math.max(2, levels[i] * (height - 4));
      context.fillStyle = style.getPropertyValue(x < at ? '--wave-played' : '--wave');
      context.fillRect(x, (height - tall) / 2, BAR - 1, tall);
    }
    context.fillStyle = style.getPropertyValue('--wave-head');
    context.fillRect(Math.min(at, width - 2), 0, 2, height);
  }

  /** The highest sample of each bar, the loudest of all as 1; kept until the width changes. */
  levels(bars) {
    if (!this.samples) return new Float32Array(bars);
    if (this.peaks?.length === bars && this.peaksOf === this.samples) return this.peaks;
    const peaks = new Float32Array(bars);
    const every = this.samples.length / bars;
    let most = 1e-4;
    for (let i = 0; i < bars; i++) {
      for (let n = Math.floor(i * every); n < (i + 1) * every; n++) {
        peaks[i] = Math.max(peaks[i], Math.abs(this.samples[n] || 0));
      }
      most = Math.max(most, peaks[i]);
    }
    this.peaks = peaks.map((peak) => peak / most);
    this.peaksOf = this.samples;
    return this.peaks;
  }
}

/** Give a canvas the size of `box` in the screen's own pixels; returns it in CSS pixels. */
export function sized(canvas, box) {
  const { clientWidth: width, clientHeight: height } = box;
  const scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  canvas.getContext('2d').setTransform(scale, 0, 0, scale, 0, 0);
  return { width, height };
}
