// The page's words in both languages, and the names of tasks, label fields and values that it knows.

const WORDS = {
  en: {
    title: 'Speak, and see all that the model hears',
    subtitle: 'Words and their times, sounds, emotion, style, gender and age of the voice, and a reply to a question.',
    language: 'Language of this page',
    input: 'Recording and tasks',
    answers: 'Answers',
    record: 'Record',
    stop: 'Stop and listen',
    choose: 'Choose a file',
    drop: 'or drop one here',
    dropNow: 'Drop it here',
    limits: (l) => `Audio of up to ${l.seconds} and ${l.bytes}.`,
    examples: 'Try an example',
    tasks: 'What to ask',
    more: 'More tasks',
    all: 'All',
    none: 'None',
    own: 'In your own words',
    prompt: 'Question',
    promptExample: 'e.g. Write down what is said, then name the mood.',
    promptHint: 'Takes the place of the usual question. The answer keeps the form of the tasks chosen above.',
    key: 'API key',
    ask: 'Ask again',
    play: 'Play',
    pause: 'Pause',
    position: 'Position in the recording',
    cannotPlay: 'This browser cannot play that format. The answers are not affected.',
    empty: 'Record something, choose a file or click an example. Each recording is asked:',
    save: 'Copy or download',
    copy: 'Copy text',
    copied: 'Copied',
    download: 'Download',
    privacy: 'Recordings are heard and forgotten: the server keeps none.',
    api: 'API',
    listening: 'Listening…',
    cancel: 'Cancel',
    cancelled: 'Cancelled.',
    done: (s, n) => `${n === 1 ? '1 answer' : `${n} answers`} in ${s} s`,
    recording: 'Recording. Press again to stop.',
    busy: 'The server is busy. It is asked again in',
    retry: 'Try again',
    recordingName: 'Recording',
    times: 'Click a word to hear it; arrow keys move from word to word.',
    nothing: '(nothing)',
    heard: 'Heard as',
    question: 'Question',
    reply: 'Reply',
    problems: 'Not certain',
    part: (from, to) => `${from} to ${to}`,
    parts: 'Piece by piece',
    isItFor: (task) => `Is the answer to ${task} right?`,
    right: 'Right',
    wrong: 'Wrong',
    correct: 'What would be right? (optional)',
    send: 'Send',
    skip: 'Back',
    others: (n) => `${n} more`,
    thanks: 'Noted, thank you.',
    notSaved: 'Could not be saved:',
    unsure: '(no idea)',
    errors: {
      noTask: 'Choose at least one task.',
      network: 'The server cannot be reached. Check the connection and try again.',
      key: 'The server asks for a valid API key. Enter it below the tasks.',
      large: 'The file is too large.',
      largeFor: (bytes) => `The file is too large: at most ${bytes}.`,
      long: 'The recording is too long.',
      longFor: (seconds) => `The recording is too long: at most ${seconds}.`,
      audio: 'This cannot be read as audio. Use wav, flac, mp3, ogg or opus.',
      busy: 'The server is busy. Try again in a moment.',
      down: 'The model is not ready. Try again in a moment.',
      timeout: 'It took too long. Try again, or a shorter recording.',
      request: 'The server does not accept that.',
      server: 'Something went wrong in the server.',
      empty: 'The file is empty.',
      denied: 'The browser may not use the microphone. Allow it in the address bar and try again.',
      noMicrophone: 'No microphone is found.',
      insecure: 'Recording needs https or localhost. Files can be uploaded all the same.',
      short: 'Nothing was recorded. Hold on a little longer.',
      said: 'The server said:',
    },
  },
  zh: {
    title: '说句话，看模型听到了什么',
    subtitle: '文字与时间，声音事件、情感、风格、性别与年龄，还能回答你的问题。',
    language: '页面语言',
    input: '录音与任务',
    answers: '结果',
    record: '录音',
    stop: '停止并识别',
    choose: '选择文件',
    drop: '或拖放到这里',
    dropNow: '松手即可上传',
    limits: (l) => `音频最长 ${l.seconds}，最大 ${l.bytes}。`,
    examples: '试试示例',
    tasks: '识别任务',
    more: '更多任务',
    all: '全选',
    none: '清空',
    own: '自己写提示词',
    prompt: '提示词',
    promptExample: '例如：写下说的话，再说说心情如何。',
    promptHint: '用它代替默认的问题；回答的形式仍按上面所选的任务。',
    key: 'API 密钥',
    ask: '重新识别',
    play: '播放',
    pause: '暂停',
    position: '播放位置',
    cannotPlay: '浏览器无法播放这种格式，识别结果不受影响。',
    empty: '录一段音、选一个文件，或点一个示例。每段录音会回答：',
    save: '复制或下载',
    copy: '复制文字',
    copied: '已复制',
    download: '下载',
    privacy: '录音听过即忘，服务器不保存。',
    api: '接口文档',
    listening: '正在识别……',
    cancel: '取消',
    cancelled: '已取消。',
    done: (s, n) => `${n} 项结果，用时 ${s} 秒`,
    recording: '正在录音，再按一次停止。',
    busy: '服务器繁忙，即将重试：',
    retry: '重试',
    recordingName: '录音',
    times: '点击文字即可跳到该处；方向键可逐字移动。',
    nothing: '（无）',
    heard: '听到的是',
    question: '问题',
    reply: '回答',
    problems: '不确定',
    part: (from, to) => `${from} 至 ${to}`,
    parts: '分段结果',
    isItFor: (task) => `“${task}”的结果对吗？`,
    right: '正确',
    wrong: '错误',
    correct: '正确的应当是？（可不填）',
    send: '提交',
    skip: '返回',
    others: (n) => `其余 ${n} 项`,
    thanks: '已记录，谢谢。',
    notSaved: '未能保存：',
    unsure: '（不清楚）',
    errors: {
      noTask: '请至少选择一项任务。',
      network: '无法连接服务器。请检查网络后重试。',
      key: '服务器需要有效的 API 密钥，请在任务下方填写。',
      large: '文件过大。',
      largeFor: (bytes) => `文件过大，最大 ${bytes}。`,
      long: '录音过长。',
      longFor: (seconds) => `录音过长，最长 ${seconds}。`,
      audio: '无法识别为音频。请使用 wav、flac、mp3、ogg 或 opus。',
      busy: '服务器繁忙，请稍后重试。',
      down: '模型尚未就绪，请稍后重试。',
      timeout: '用时过长。请重试，或换一段短一些的录音。',
      request: '服务器不接受该请求。',
      server: '服务器内部出错。',
      empty: '文件为空。',
      denied: '浏览器未获准使用麦克风。请在地址栏中允许后重试。',
      noMicrophone: '没有找到麦克风。',
      insecure: '录音需要 https 或 localhost；仍可上传文件。',
      short: '没有录到声音，请录久一点。',
      said: '服务器答复：',
    },
  },
};

// name -> [English, Chinese, English what, Chinese what]
const TASKS = {
  asr: ['Transcript', '语音识别', 'what is said', '说了什么'],
  srwt: ['Words with times', '带时间的文字', 'and when', '每个字是什么时候说的'],
  ved: ['Sound event', '声音事件', 'a laugh, a cough, a sigh…', '笑、咳嗽、叹气……'],
  ser: ['Emotion', '情感', 'happy, sad, angry…', '高兴、悲伤、生气……'],
  ssr: ['Speaking style', '说话风格', 'news, a story, service…', '新闻、故事、客服……'],
  sgc: ['Gender', '性别', 'of the voice', '男声还是女声'],
  sap: ['Age', '年龄', 'child, adult or old', '儿童、成人或老人'],
  sttc: ['Reply', '语音问答', 'to a spoken question', '回答说出的问题'],
  age_gender: ['Age and gender', '年龄与性别'],
  age_gender_only: ['Age and gender alone', '仅年龄与性别'],
  style_age_gender: ['Style, age, gender', '风格、年龄、性别'],
  style_age_gender_only: ['Style, age, gender alone', '仅风格、年龄、性别'],
  ved_only: ['Sound event alone', '仅声音事件'],
  ser_only: ['Emotion alone', '仅情感'],
  ssr_only: ['Style alone', '仅风格'],
  sgc_only: ['Gender alone', '仅性别'],
  sap_only: ['Age alone', '仅年龄'],
};

const FIELDS = {
  event: ['Sound event', '声音事件'],
  emotion: ['Emotion', '情感'],
  style: ['Speaking style', '说话风格'],
  gender: ['Gender', '性别'],
  age: ['Age', '年龄'],
};

const VALUES = {
  laugh: ['laugh', '笑声'],
  cough: ['cough', '咳嗽'],
  cry: ['cry', '哭声'],
  screaming: ['screaming', '尖叫'],
  sigh: ['sigh', '叹气'],
  'throat clearing': ['throat clearing', '清嗓子'],
  sneeze: ['sneeze', '喷嚏'],
  other: ['other', '其他'],
  sad: ['sad', '悲伤'],
  anger: ['anger', '生气'],
  neutral: ['neutral', '中性'],
  happy: ['happy', '高兴'],
  surprise: ['surprise', '惊讶'],
  fear: ['fear', '害怕'],
  disgust: ['disgust', '厌恶'],
  新闻科普: ['news and science', '新闻科普'],
  恐怖故事: ['horror story', '恐怖故事'],
  童话故事: ['fairy tale', '童话故事'],
  客服: ['customer service', '客服'],
  诗歌散文: ['poetry and prose', '诗歌散文'],
  有声书: ['audiobook', '有声书'],
  日常口语: ['everyday speech', '日常口语'],
  其他: ['other', '其他'],
  female: ['female', '女'],
  male: ['male', '男'],
  child: ['child', '儿童'],
  adult: ['adult', '成人'],
  old: ['old', '老人'],
};

let current = 'en';

/** 'zh' or 'en': as chosen here before, else as the browser prefers. */
export function firstLanguage() {
  try {
    const kept = localStorage.getItem('osum.language');
    if (kept === 'zh' || kept === 'en') return kept;
  } catch {
    // storage is closed: the browser's own preference it is
  }
  const wish = (navigator.languages || [navigator.language]).find((l) => /^(zh|en)\b/i.test(l));
  return wish && /^zh/i.test(wish) ? 'zh' : 'en';
}

export function keepLanguage(language) {
  try {
    localStorage.setItem('osum.language', language);
  } catch {
    // not remembered, then
  }
}

/** Put the page's fixed words into `language`. */
export function translate(language) {
  current = language;
  document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en';
  for (const e of document.querySelectorAll('[data-text]')) e.textContent = t(e.dataset.text);
  for (const e of document.querySelectorAll('[data-label]')) e.setAttribute('aria-label', t(e.dataset.label));
  for (const e of document.querySelectorAll('[data-placeholder]')) e.placeholder = t(e.dataset.placeholder);
  for (const e of document.querySelectorAll('[data-language]')) {
    e.setAttribute('aria-pressed', String(e.dataset.language === language));
  }
}

/** The words of a key (`errors.busy`), with what goes into them. */
export function t(key, ...values) {
  const found = key.split('.').reduce((of, part) => of[part], WORDS[current]);
  return typeof found === 'function' ? found(...values) : found;
}

const named = (names, key, column = 0) => names[key]?.[column + (current === 'zh' ? 1 : 0)];

export const taskName = (name) => named(TASKS, name) || name.toUpperCase().replaceAll('_', ' ');
export const taskHint = (name) => named(TASKS, name, 2) || '';
export const fieldName = (name) => named(FIELDS, name) || name;
export const valueName = (value) => named(VALUES, value) || value;

/** Seconds as `1:07`, or `1:07.3` with one decimal. */
export function clock(seconds, decimals = 0) {
  const unit = 10 ** decimals;
  const whole = Math.max(0, Math.floor((seconds || 0) * unit + 1e-6));
  const rest = ((whole / unit) % 60).toFixed(decimals).padStart(decimals ? 3 + decimals : 2, '0');
  return `${Math.floor(whole / unit / 60)}:${rest}`;
}

export function span(seconds) {
  const minutes = seconds / 60;
  if (seconds < 120) return current === 'zh' ? `${round(seconds)} 秒` : `${round(seconds)} s`;
  if (minutes < 120) return current === 'zh' ? `${round(minutes)} 分钟` : `${round(minutes)} min`;
  return current === 'zh' ? `${round(minutes / 60)} 小时` : `${round(minutes / 60)} h`;
}

export const megabytes = (bytes) => (bytes < 1e6 ? `${round(bytes / 1024)} KB` : `${round(bytes / 1048576)} MB`);

const round = (x) => String(Math.round(x * 10) / 10);
