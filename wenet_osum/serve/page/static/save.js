// Answers as text, JSON and subtitles. The subtitles are those of wenet_osum/decode/formats.py, row by row.

import { percent } from './bars.js';
import { fieldName, t, taskName, valueName } from './strings.js';
import { joinWords, oneLine, splitWords, width } from './words.js';

const ROW_WIDTH = 42;
const ROW_SECONDS = 7;
const PAUSE = 0.3; // seconds without a word that end a row

/** What a person reads: the words, then a line a label. */
export function asText(answer) {
  const lines = [];
  const tasks = Object.entries(answer.tasks);
  const spoken = tasks.map(([, heard]) => heard.text).find((text) => text);
  if (spoken) lines.push(spoken);
  for (const [name, heard] of tasks) {
    for (const [field, value] of Object.entries(heard.labels)) {
      const p = heard.probabilities[field]?.[value];
      lines.push(`${fieldName(field)}: ${valueName(value)}${p === undefined ? '' : ` (${percent(p)})`}`);
    }
    if (heard.reply) lines.push(`${taskName(name)}: ${heard.reply}`);
  }
  return lines.map((line) => `${line}\n`).join('') || `${t('nothing')}\n`;
}

export const asJson = (answer) => `${JSON.stringify(answer)}\n`;

export function asSrt(answer) {
  const cue = ([start, end, line], n) => `${n + 1}\n${stamp(start, ',')} --> ${stamp(end, ',')}\n${line.replaceAll('-->', '->')}\n`;
  return subtitles(answer).map(cue).join('\n');
}

export function asVtt(answer) {
  const safe = (line) => line.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
  const cue = ([start, end, line]) => `\n${stamp(start, '.')} --> ${stamp(end, '.')}\n${safe(line)}\n`;
  return `WEBVTT\n${subtitles(answer).map(cue).join('')}`;
}

/** [[start ms, end ms, text]]: from the words of the first task that has times, else from the segments of the
 * first with a text. */
export function subtitles(answer) {
  const tasks = Object.values(answer.tasks);
  const timed = tasks.find((heard) => heard.words?.length);
  const spoken = tasks.find((heard) => heard.text !== null);
  const found = timed ? rows(timed.words) : (spoken?.segments || []).flatMap((segment) => rows(spread(segment)));
  const shown = [];
  for (const [start, end, line] of found) {
    let first = Math.max(Math.round(start * 1000), 0);
    const last = shown.at(-1);
    if (last && last[1] > first) {
      last[1] = Math.max(first, last[0] + 1); // neighbours overlap: the earlier row makes way, if it can
      first = Math.max(first, last[0] + 1);
    }
    shown.push([first, Math.max(Math.round(end * 1000), first + 1), line]);
  }
  return shown;
}

function rows(words) {
  const found = [];
  for (const { start, end, word } of words) {
    const next = { start, end, word: oneLine(word) };
    if (!next.word) continue;
    const row = found.at(-1);
    const ends = row && Math.max(...row.map((w) => w.end));
    if (
      row &&
      start - ends < PAUSE &&
      Math.max(ends, end) - row[0].start <= ROW_SECONDS &&
      width(joinWords([...row, next].map((w) => w.word))) <= ROW_WIDTH
    ) {
      row.push(next);
    } else found.push([next]);
  }
  return found.map((row) => [row[0].start, Math.max(...row.map((w) => w.end)), joinWords(row.map((w) => w.word))]);
}

/** The words of a segment one behind the other, each with a share of its time that goes by its width. */
function spread({ start, end, text }) {
  const words = splitWords(text);
  const whole = words.reduce((sum, word) => sum + width(word), 0);
  const length = Math.max(0, end - start);
  let at = 0;
  return words.map((word) => {
    const from = start + (length * at) / whole;
    at += width(word);
    return { start: from, end: start + (length * at) / whole, word };
  });
}

function stamp(ms, point) {
  const two = (x) => String(Math.floor(x)).padStart(2, '0');
  return `${two(ms / 3600000)}:${two((ms / 60000) % 60)}:${two((ms / 1000) % 60)}${point}${String(ms % 1000).padStart(3, '0')}`;
}

const FORMATS = { txt: [asText, 'text/plain'], json: [asJson, 'application/json'], srt: [asSrt, 'application/x-subrip'], vtt: [asVtt, 'text/vtt'] };

/** Save an answer as a file: `name` without its suffix and the format's. */
export function download(answer, format, name) {
  const [write, type] = FORMATS[format];
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([write(answer)], { type: `${type};charset=utf-8` }));
  link.download = `${name.replace(/\.[^.]*$/, '') || 'osum'}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
