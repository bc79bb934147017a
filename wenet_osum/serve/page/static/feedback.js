// Right or wrong, and what would be right: below every answer, where the server stores it.

import { sendFeedback } from './api.js';
import { el } from './dom.js';
import { fieldName, t, taskName, valueName } from './strings.js';

/** The row below an answer.
 *
 * facts: the task as the server describes it; about: {file, duration, prompt}; given: Map of task name -> what was
 * sent for this answer, which outlives the row when the language changes. */
export function feedbackRow(facts, heard, about, given) {
  const row = el('div', { class: 'feedback' });
  const sent = given.get(facts.name);
  if (sent) thank(sent);
  else ask();
  return row;

  function ask(focus = false) {
    const label = t('isItFor', taskName(facts.name));
    const right = el('button', { type: 'button', class: 'verdict', 'data-verdict': 'right', onclick: () => send('right') }, `✓ ${t('right')}`);
    const wrong = el('button', { type: 'button', class: 'verdict', 'data-verdict': 'wrong', onclick: correct }, `✗ ${t('wrong')}`);
    row.replaceChildren(el('span', { role: 'group', 'aria-label': label }, right, wrong));
    if (focus) wrong.focus();
  }

  function correct() {
    const id = `correct-${facts.name}`;
    const fields = facts.fields.map(({ name, values }) =>
      el(
        'select',
        { 'aria-label': fieldName(name), name },
        el('option', { value: '' }, facts.fields.length > 1 ? `${fieldName(name)}: ${t('unsure')}` : t('unsure')),
        ...values.filter((v) => v !== heard.labels[name]).map((v) => el('option', { value: v }, valueName(v))),
      ),
    );
    // A task with labels asks about them; one with a reply about that; the others about the text.
    const area = el('textarea', { id, rows: 2, maxlength: 4000, 'aria-label': t('correct') });
    area.value = facts.reply ? heard.reply || '' : heard.text || '';
    const form = el(
      'form',
      { class: 'correct' },
      el('p', {}, t('correct')),
      ...(fields.length ? fields : [area]),
      el('p', { class: 'row' }, el('button', { type: 'submit', class: 'small primary' }, t('send')), el('button', { type: 'button', class: 'small', onclick: () => ask(true) }, t('skip'))),
    );
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      const chosen = fields.filter((f) => f.value).map((f) => [f.name, f.value]);
      if (fields.length) send('wrong', chosen.length ? { labels: Object.fromEntries(chosen) } : {});
      else send('wrong', area.value.trim() === area.defaultValue ? {} : { [facts.reply ? 'reply' : 'text']: area.value.trim() });
    });
    area.defaultValue = area.value;
    row.replaceChildren(form);
    (fields[0] || area).focus();
  }

  async function send(verdict, corrected = {}) {
    const { text, labels, reply } = heard;
    const old = row.querySelector('.not-saved');
    if (old) old.remove();
    for (const button of row.querySelectorAll('button')) button.disabled = true;
    try {
      await sendFeedback({ ...about, task: facts.name, verdict, answer: { text, labels, reply }, corrected });
    } catch (error) {
      for (const button of row.querySelectorAll('button')) button.disabled = false;
      row.append(el('p', { class: 'not-saved', role: 'alert' }, `${t('notSaved')} ${error.words || error.message}`));
      return;
    }
    given.set(facts.name, verdict);
    thank(verdict, true);
  }

  function thank(verdict, now = false) {
    const words = el('p', { class: 'thanks', tabindex: -1 }, `${verdict === 'right' ? '✓' : '✗'} ${t('thanks')}`);
    row.replaceChildren(words);
    if (now) words.focus(); // the button that had the focus is gone
  }
}
