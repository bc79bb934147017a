// What the page asks of the server, and its errors in words.

import { megabytes, span, t } from './strings.js';

const KEY = 'osum.key';
const RETRIES = 3; // times that a busy server is asked again by itself

/** An error to show: `words` in the page's language (a key of strings.js and what goes into it), and what the
 * server said. */
export class Problem extends Error {
  constructor(key, values = [], said = '') {
    super(key);
    Object.assign(this, { key, values, said });
  }

  get words() {
    return t(`errors.${this.key}`, ...this.values);
  }
}

export function apiKey() {
  try {
    return sessionStorage.getItem(KEY) || '';
  } catch {
    return '';
  }
}

export function keepApiKey(key) {
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    // asked for again at the next visit
  }
}

/** A response that is well; else a Problem that says why. Addresses are relative: the page may lie below a proxy's path. */
async function call(address, options = {}, limits = {}) {
  const headers = { ...options.headers };
  if (apiKey()) headers.Authorization = `Bearer ${apiKey()}`;
  let response;
  try {
    response = await fetch(address, { ...options, headers });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem('network');
  }
  if (response.ok) return response;
  const said = await messageOf(response);
  throw Object.assign(new Problem(...causeOf(response.status, said, limits)), {
    status: response.status,
    wait: Number(response.headers.get('Retry-After')) || 0,
  });
}

/** A server's error in OpenAI's shape: its message, and the code where there is one. */
async function messageOf(response) {
  try {
    const { error } = await response.json();
    return { message: String(error.message || ''), code: String(error.code || '') };
  } catch {
    return { message: response.statusText || String(response.status), code: '' };
  }
}

function causeOf(status, { message, code }, limits) {
  if (status === 401 || status === 403) return ['key', [], message];
  if (status === 413 && /second|long|duration/i.test(`${code} ${message}`)) {
    return limits.seconds ? ['longFor', [span(limits.seconds)], message] : ['long', [], message];
  }
  if (status === 413) return limits.bytes ? ['largeFor', [megabytes(limits.bytes)], message] : ['large', [], message];
  if (status === 429) return ['busy', [], message];
  if (status === 415 || (status === 400 && /audio/i.test(`${code} ${message}`))) return ['audio', [], message];
  if (status === 503 || status === 502) return ['down', [], message];
  if (status === 504 || status === 408) return ['timeout', [], message];
  return [status < 500 ? 'request' : 'server', [], message];
}

export const facts = async () => (await call('page/facts')).json();

export async function example({ url, name }) {
  const blob = await (await call(url)).blob();
  return new File([blob], name, { type: blob.type });
}

/** The answers to `file`, as `osum transcribe --format json` has them. A busy server is asked again when it says.
 *
 * question: {tasks, prompt}; waiting(seconds): told before each second of a wait; signal: an AbortSignal. */
export async function understand(file, question, limits, waiting, signal) {
  if (!file.size) throw new Problem('empty');
  if (limits.bytes && file.size > limits.bytes) throw new Problem('largeFor', [megabytes(limits.bytes)]);
  for (let left = RETRIES; ; left--) {
    const body = new FormData();
    body.append('file', file, file.name);
    body.append('tasks', question.tasks.join(','));
    if (question.prompt) body.append('prompt', question.prompt);
    try {
      return await (await call('v1/understand', { method: 'POST', body, signal }, limits)).json();
    } catch (error) {
      if (error.status !== 429 || !left) throw error;
      for (let second = Math.max(1, Math.ceil(error.wait)); second > 0; second--) {
        waiting(second);
        await pause(1000, signal);
      }
      waiting(0);
    }
  }
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal.addEventListener('abort', stop, { once: true });
  });
}

export async function sendFeedback(verdict) {
  const headers = { 'Content-Type': 'application/json' };
  await call('page/feedback', { method: 'POST', headers, body: JSON.stringify(verdict) });
}
