// A label field's answer: the value in large, and a bar for the probability of every value.

import { el } from './dom.js';
import { fieldName, t, valueName } from './strings.js';

const SHOWN = 4; // likeliest values that are seen before the rest is asked for

/** label: the value that was answered. probabilities: value -> probability, or undefined. */
export function labelBars(field, label, probabilities) {
  const box = el('div', { class: 'label' });
  const sure = probabilities?.[label];
  box.append(
    el(
      'p',
      { class: 'value' },
      el('span', {}, label === undefined ? '–' : valueName(label)),
      sure === undefined ? null : el('span', { class: 'percent' }, percent(sure)),
    ),
  );
  if (!probabilities) return box;
  const sorted = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  box.append(
    el(
      'ul',
      { class: 'bars', 'aria-label': fieldName(field) },
      ...sorted.slice(0, SHOWN).map(([value, p]) => bar(value, p, value === label)),
    ),
  );
  if (sorted.length > SHOWN) {
    box.append(
      el(
        'details',
        { class: 'rest' },
        el('summary', {}, t('others', sorted.length - SHOWN)),
        el('ul', { class: 'bars' }, ...sorted.slice(SHOWN).map(([value, p]) => bar(value, p, value === label))),
      ),
    );
  }
  return box;
}

function bar(value, probability, chosen) {
  const fill = el('span', { class: 'fill' });
  fill.style.setProperty('--share', probability);
  return el(
    'li',
    { class: chosen ? 'bar chosen' : 'bar' },
    el('span', { class: 'bar-name' }, valueName(value)),
    el('span', { class: 'track', 'aria-hidden': 'true' }, fill),
    el('span', { class: 'bar-percent' }, percent(probability)),
  );
}

/** A probability in whole per cent, which says neither 0 nor 100 of what is neither. */
export function percent(p) {
  if (p > 0 && p < 0.005) return '<1 %';
  if (p < 1 && p >= 0.995) return '>99 %';
  return `${Math.round(100 * p)} %`;
}
