// The page: what it holds, and what leads to what.

import { apiKey, facts as askFacts, keepApiKey, Problem, understand } from './api.js';
import { showCards } from './cards.js';
import { byId, el } from './dom.js';
import { showExamples, wireFiles, wireMicrophone } from './input.js';
import { asText, download } from './save.js';
import { firstLanguage, keepLanguage, megabytes, span, t, translate } from './strings.js';
import { chosenTasks, showTasks, wireTasks } from './tasks.js';
import { RATE } from './wav.js';
import { Player } from './wave.js';

const POLL = 2000; // ms after which a server that loads its model is asked again

let facts = null; // of the server
let source = null; // {file, spoken: whether it was recorded here}
let shown = null; // the answer and what belongs to it, see cards.js
let followers = [];
let asking = null; // AbortController of the request under way
let status = () => ''; // what the status line says, in the language of the moment
let problem = null;

const player = new Player(byId('player'), (seconds) => {
  for (const follow of followers) follow(seconds);
});

/** The status line. Only its words are told to who cannot see it, not the seconds that tick behind them. */
function say(words, ticking = false) {
  status = words;
  byId('status').textContent = words();
  byId('status-line').classList.toggle('busy', ticking);
  byId('cancel').hidden = !ticking;
  if (!ticking) byId('tick').textContent = '';
}

function fail(error) {
  if (!(error instanceof Problem)) console.error(error);
  problem = error instanceof Problem ? error : new Problem('server', [], error.message);
  showProblem();
  if (problem.key === 'key') {
    byId('key-row').hidden = false;
    byId('key').focus();
  }
}

function showProblem() {
  const box = byId('alert');
  box.hidden = !problem;
  box.replaceChildren();
  if (!problem) return;
  box.append(el('p', {}, problem.words));
  if (problem.said) box.append(el('p', { class: 'hint' }, `${t('errors.said')} ${problem.said}`));
  if (source && ['network', 'busy', 'down', 'timeout', 'server'].includes(problem.key)) {
    box.append(el('button', { type: 'button', class: 'small', onclick: () => ask() }, t('retry')));
  }
}

function clear() {
  problem = null;
  showProblem();
  say(() => '');
}

function take(file, spoken = false) {
  source = { file, spoken };
  byId('again').hidden = !facts;
  player.load(file, sourceName());
  if (facts) ask();
}

const sourceName = () => (source.spoken ? t('recordingName') : source.file.name);

async function ask() {
  asking?.abort();
  clear();
  const tasks = chosenTasks();
  byId('cards').hidden = true;
  byId('save').hidden = true;
  byId('empty').hidden = true;
  shown = null;
  followers = [];
  if (!tasks.length) return fail(new Problem('noTask'));
  const own = new AbortController();
  asking = own;
  const prompt = byId('own').open ? byId('prompt').value.trim() : '';
  const began = performance.now();
  say(() => t('listening'), true);
  const tick = (seconds) => {
    byId('tick').textContent = span(seconds);
  };
  tick(0);
  reveal();
  let wait = 0;
  const timer = setInterval(() => wait || tick(Math.floor((performance.now() - began) / 1000)), 250);
  try {
    const waiting = (left) => {
      if (!wait || !left) say(() => t(left ? 'busy' : 'listening'), true);
      wait = left;
      tick(left);
    };
    const answer = await understand(source.file, { tasks, prompt }, facts.limits, waiting, own.signal);
    if (asking !== own) return;
    const taken = ((performance.now() - began) / 1000).toFixed(1);
    const { file } = source;
    shown = {
      answer,
      tasks: new Map(facts.tasks.map((task) => [task.name, task])),
      feedback: facts.feedback,
      given: new Map(),
      about: { file: [...file.name].slice(0, 200).join(''), duration: answer.duration, prompt },
    };
    showAnswer();
    reveal();
    say(() => t('done', taken, Object.keys(answer.tasks).length));
  } catch (error) {
    if (asking !== own) return;
    if (own.signal.aborted) say(() => t('cancelled'));
    else {
      say(() => '');
      fail(error);
    }
  } finally {
    clearInterval(timer);
    if (asking === own) asking = null;
  }
}

/** Where the answers are out of sight (below the tasks, on a phone), they are brought there. */
function reveal() {
  const behavior = matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth';
  const { top } = byId('answer').getBoundingClientRect();
  if (top < 0 || top > 0.5 * innerHeight) byId('answer').scrollIntoView({ behavior });
}

function showAnswer() {
  byId('cards').hidden = false;
  byId('save').hidden = false;
  followers = showCards(byId('cards'), shown, (start, end) => player.playSpan(start, end));
  player.show();
}

/** All that depends on the language; what was chosen and answered stays. */
function speak(language) {
  translate(language);
  if (facts) showFacts();
  if (source) player.root.querySelector('#name').textContent = sourceName();
  if (shown) showAnswer();
  byId('status').textContent = status();
  showProblem();
  player.show();
}

function showFacts() {
  const { limits } = facts;
  byId('model').textContent = facts.model;
  byId('limits').textContent = t('limits', { seconds: span(limits.seconds), bytes: megabytes(limits.bytes) });
  byId('key-row').hidden = !facts.key;
  byId('api').hidden = !facts.docs;
  showTasks(facts.tasks);
  showExamples(facts.examples, { take, fail });
}

async function load() {
  try {
    facts = await askFacts();
    if (!facts.ready) throw new Problem('down');
  } catch (error) {
    facts = null;
    if (problem?.key !== error.key) fail(error); // told once
    setTimeout(load, POLL);
    return;
  }
  clear();
  showFacts();
  byId('again').hidden = !source;
  if (source) ask();
}

for (const button of document.querySelectorAll('[data-language]')) {
  button.addEventListener('click', () => {
    keepLanguage(button.dataset.language);
    speak(button.dataset.language);
  });
}
byId('cancel').addEventListener('click', () => asking?.abort());
byId('form').addEventListener('submit', (event) => {
  event.preventDefault();
  if (source && facts) ask();
});
byId('key').value = apiKey();
byId('key').addEventListener('change', () => keepApiKey(byId('key').value.trim()));
for (const button of document.querySelectorAll('[data-save]')) {
  button.addEventListener('click', async () => {
    const { save } = button.dataset;
    if (save !== 'copy') return download(shown.answer, save, source.file.name);
    await copy(asText(shown.answer));
    button.textContent = t('copied');
    setTimeout(() => {
      button.textContent = t('copy');
    }, 2000);
  });
}

/** The clipboard, which pages have on https and localhost; elsewhere by a selection. */
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = el('textarea', { class: 'hidden' });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand('copy');
  area.remove();
}

/** How long a recording may be, by the server's limits of time and of size; a little less, for what rounding adds. */
function mostSeconds() {
  if (!facts) return 60;
  const { seconds, bytes } = facts.limits;
  return Math.min(seconds, (bytes - 44) / (2 * RATE)) - 0.05;
}

wireTasks();
wireFiles({ take });
wireMicrophone({
  take,
  fail,
  most: mostSeconds,
  begun: () => {
    asking?.abort();
    player.audio.pause(); // or it would hear itself
    clear();
    say(() => t('recording'));
  },
});
speak(firstLanguage());
load();
