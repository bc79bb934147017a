// Timed words that follow the playback: the one being said is marked, a click plays it, arrow keys move among them.

import { el } from './dom.js';
import { clock, t } from './strings.js';
import { between } from './words.js';

/** words: [{start, end, word}] in seconds; play(start, end). Returns {element, follow(seconds)}. */
export function timedWords(words, play) {
  const box = el('p', { class: 'words', role: 'group', 'aria-label': t('times') });
  const buttons = words.map(({ start, end, word }, i) =>
    el(
      'button',
      {
        type: 'button',
        class: 'word',
        tabindex: i ? -1 : 0, // one stop for the Tab key; arrows go on from there
        'aria-label': `${word}, ${clock(start, 2)}`,
        title: `${clock(start, 2)} – ${clock(end, 2)}`,
        onclick: () => play(start, end),
      },
      word,
    ),
  );
  buttons.forEach((button, i) => box.append(i ? between(words[i - 1].word, words[i].word) : '', button));

  box.addEventListener('focusin', ({ target }) => {
    for (const button of buttons) button.tabIndex = button === target ? 0 : -1;
  });
  box.addEventListener('keydown', (event) => {
    const at = buttons.indexOf(event.target);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    buttons[to]?.focus();
    event.preventDefault();
  });

  let marked = null;
  function follow(seconds) {
    const i = seconds > 0 ? words.findIndex(({ start, end }) => start <= seconds && seconds < end) : -1;
    const now = buttons[i] || null;
    if (now === marked) return;
    marked?.classList.remove('now');
    marked?.removeAttribute('aria-current');
    now?.classList.add('now');
    now?.setAttribute('aria-current', 'true');
    marked = now;
  }
  return { element: box, follow };
}
