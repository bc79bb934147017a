// Where recordings come from: the microphone, a file chosen or dropped, an example.

import { example } from './api.js';
import { byId, el } from './dom.js';
import { startRecording } from './record.js';
import { clock, t } from './strings.js';
import { sized } from './wave.js';

/** Wire the microphone's button. take(file): a recording is there; fail(error); most(): seconds that the server takes; begun(). */
export function wireMicrophone({ take, fail, most, begun }) {
  const button = byId('record');
  const text = byId('record-text');
  const levels = [];
  let recording = null;
  let busy = false; // between two presses: the browser may be asking whether it may

  button.addEventListener('click', async () => {
    if (busy) return;
    busy = true;
    try {
      if (recording) await finish();
      else await begin();
    } catch (error) {
      idle();
      fail(error);
    }
    busy = false;
  });

  async function begin() {
    levels.length = 0;
    const enough = most();
    recording = await startRecording((samples, seconds) => {
      levels.push(Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length));
      byId('clock').textContent = clock(seconds);
      drawLevels(levels);
      if (seconds >= enough && !busy) button.click();
    }, enough);
    button.setAttribute('aria-pressed', 'true');
    text.dataset.text = 'stop';
    text.textContent = t('stop');
    byId('meter').hidden = false;
    byId('upload').hidden = true;
    begun();
  }

  async function finish() {
    const { stop } = recording;
    try {
      take(new File([await stop()], 'recording.wav', { type: 'audio/wav' }), true);
    } finally {
      idle();
    }
  }

  function idle() {
    recording?.drop();
    recording = null;
    button.setAttribute('aria-pressed', 'false');
    text.dataset.text = 'record';
    text.textContent = t('record');
    byId('meter').hidden = true;
    byId('upload').hidden = false;
  }
}

function drawLevels(levels) {
  const canvas = byId('level');
  const { width, height } = sized(canvas, canvas);
  const context = canvas.getContext('2d');
  context.clearRect(0, 0, width, height);
  context.fillStyle = getComputedStyle(canvas).color;
  levels.slice(-Math.floor(width / 4)).forEach((level, i) => {
    const tall = Math.max(2, Math.min(1, 4 * level) * height);
    context.fillRect(4 * i, (height - tall) / 2, 2, tall);
  });
}

/** Wire the file's button and the place to drop one. */
export function wireFiles({ take }) {
  const chosen = byId('file');
  chosen.addEventListener('change', () => {
    if (chosen.files[0]) take(chosen.files[0]);
    chosen.value = ''; // the same file may be chosen again
  });
  const hint = document.querySelector('.drop-hint');
  let inside = 0; // elements that the file is over: entering a child comes before leaving its parent
  const over = (by) => {
    inside = Math.max(0, by === 0 ? 0 : inside + by);
    byId('drop').classList.toggle('over', inside > 0);
    hint.textContent = t(inside ? 'dropNow' : 'drop');
  };
  addEventListener('dragenter', (event) => event.dataTransfer?.types.includes('Files') && over(1));
  addEventListener('dragleave', () => inside && over(-1));
  addEventListener('dragover', (event) => event.preventDefault()); // else the browser would open the file
  addEventListener('drop', (event) => {
    event.preventDefault();
    over(0);
    const file = event.dataTransfer?.files[0];
    if (file) take(file);
  });
}

/** A button an example. */
export function showExamples(examples, { take, fail }) {
  byId('examples-card').hidden = !examples.length;
  const button = (one) =>
    el(
      'button',
      {
        type: 'button',
        class: 'example',
        onclick: async () => {
          try {
            take(await example(one));
          } catch (error) {
            fail(error);
          }
        },
      },
      one.title,
    );
  byId('examples').replaceChildren(...examples.map((one) => el('li', {}, button(one))));
}
