// The answer to each task as a card: words, times, labels, reply; and what the model was not sure of.

import { labelBars } from './bars.js';
import { el } from './dom.js';
import { feedbackRow } from './feedback.js';
import { clock, fieldName, t, taskName, valueName } from './strings.js';
import { timedWords } from './transcript.js';

/** Fill `box` with a card a task. Returns the functions that follow the playback.
 *
 * shown: {answer: what /v1/understand gave, tasks: name -> the task as the server describes it, feedback: whether
 * the server stores it, given: Map of what was said of these answers, about: what goes with feedback}. */
export function showCards(box, shown, play) {
  const followers = [];
  const tasks = Object.entries(shown.answer.tasks);
  const words = tasks.map(([, heard]) => heard.text).find((text) => text) ?? null;
  const cards = tasks.map(([name, heard]) => {
    const facts = shown.tasks.get(name) || { name, fields: [], reply: heard.reply !== null };
    const card = el('article', { class: `card task task-${kindOf(heard)}`, 'data-task': name, 'aria-labelledby': `task-${name}` }, el('h3', { id: `task-${name}` }, taskName(name)));
    if (heard.words?.length) {
      const timed = timedWords(heard.words, play);
      followers.push(timed.follow);
      card.append(timed.element, el('p', { class: 'hint' }, t('times')));
    } else if (kindOf(heard) === 'text') {
      card.append(el('p', { class: 'said' }, heard.text || t('nothing')));
    } else if (heard.reply !== null) {
      card.append(
        el('p', { class: 'bubble asked' }, el('span', { class: 'hidden' }, `${t('question')}: `), heard.text || t('nothing')),
        el('p', { class: 'bubble replied' }, el('span', { class: 'hidden' }, `${t('reply')}: `), heard.reply || t('nothing')),
      );
    }
    const fields = Object.keys(heard.labels).length ? Object.keys(heard.labels) : facts.fields.map((f) => f.name);
    for (const field of fields) {
      if (fields.length > 1) card.append(el('h4', {}, fieldName(field)));
      card.append(labelBars(field, heard.labels[field], heard.probabilities[field]));
    }
    if (fields.length && heard.text && heard.text !== words) {
      card.append(el('p', { class: 'hint' }, `${t('heard')}: ${heard.text}`));
    }
    if (heard.problems.length) {
      card.append(el('div', { class: 'problems' }, el('strong', {}, t('problems')), el('ul', {}, ...heard.problems.map((p) => el('li', {}, p)))));
    }
    if (heard.segments.length > 1) card.append(pieces(heard, play));
    if (shown.feedback) card.append(feedbackRow(facts, heard, shown.about, shown.given));
    return card;
  });
  box.replaceChildren(...cards);
  return followers;
}

/** Which card: words want the whole width, labels share it. */
function kindOf(heard) {
  if (heard.reply !== null) return 'reply';
  return Object.keys(heard.labels).length || heard.text === null ? 'label' : 'text';
}

/** The pieces of a long recording, each to click. */
function pieces({ segments }, play) {
  const rows = segments.map(({ start, end, text, labels }) => {
    const said = [text, ...Object.values(labels || {}).map(valueName)].filter(Boolean).join(' · ');
    const button = el('button', { type: 'button', class: 'link', onclick: () => play(start, end), 'aria-label': t('part', clock(start), clock(end)) }, clock(start));
    return el('li', {}, button, ' ', said || t('nothing'));
  });
  return el('details', { class: 'pieces' }, el('summary', {}, t('parts')), el('ul', {}, ...rows));
}
