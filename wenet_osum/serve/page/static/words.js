// How text splits into words and joins again: the rules of wenet_osum/text/normalize.py.

const HAN = '\\u4e00-\\u9fff\\u3400-\\u4dbf\\uf900-\\ufaff\\u{20000}-\\u{323af}';
const IS_HAN = new RegExp(`[${HAN}]`, 'u');
const NO_SPACE_BESIDE = new RegExp(`\\s*([${HAN}<>])\\s*`, 'gu');
const WORD = new RegExp(`[${HAN}]|[^\\s${HAN}]+`, 'gu');
const WIDE = new RegExp(`[${HAN}\\u1100-\\u115f\\u2e80-\\u303e\\u3041-\\ua4cf\\uac00-\\ud7a3\\ufe30-\\ufe6f\\uff01-\\uff60\\uffe0-\\uffe6]`, 'u');

export const isHan = (text) => IS_HAN.test(text);
export const splitWords = (text) => text.match(WORD) || [];
export const oneLine = (text) => text.split(/\s+/).filter(Boolean).join(' ');
export const joinWords = (words) => oneLine(words.join(' ').toLowerCase()).replace(NO_SPACE_BESIDE, '$1');

/** Columns on a screen: a Chinese character takes two. */
export const width = (line) => [...line].reduce((sum, c) => sum + (WIDE.test(c) ? 2 : 1), 0);

/** What stands between two words of a transcript. */
export const between = (left, right) => (isHan([...left].at(-1) || '') || isHan([...right][0] || '') ? '' : ' ');
