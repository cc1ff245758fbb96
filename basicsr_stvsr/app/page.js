'use strict';
const byId = id => document.getElementById(id);
const IDLE = 3000, BUSY = 400;  // milliseconds between looks at the server
const HEIGHTS = [720, 1080, 1440, 2160], SCALES = [1, 1.5, 2, 3, 4], RATES = [24, 25, 30, 50, 60, 120];
const IMAGE_MODEL = 'fstrn-small';  // it needs no neighbouring frames
let about;  // the models and limits of the server
let sending = null;  // the upload under way
let timer = 0;

// ---------------------------------------------------------------- talking to the server

async function ask(path, method = 'GET', body) {
  let answer;
  try {
    answer = await fetch(path, {method, body: body && JSON.stringify(body)});
  } catch {
    throw new Error('The server does not answer. Is stvsr app still running?');
  }
  const isJson = (answer.headers.get('Content-Type') || '').startsWith('application/json');
  const result = isJson ? await answer.json() : {error: await answer.text()};
  if (!answer.ok) throw new Error(result.error || 'The server failed; its terminal says why.');
  return result;
}

function say(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

// Does what a button asks for, shows what it changed, and says what went wrong
async function act(action, problem = byId('problem')) {
  say(problem, '');
  try {
    await action();
  } catch (error) {
    say(problem, error.message);
  }
  await refresh();
}

async function refresh() {
  clearTimeout(timer);
  let isBusy = false;
  try {
    const {uploads} = await ask('/api/uploads');
    say(byId('lost'), '');
    synchronize(byId('uploads'), uploads.reverse(), makeUpload, showUpload);
    isBusy = uploads.some(upload => upload.runs.some(isActive));
  } catch (error) {
    say(byId('lost'), error.message);
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, isBusy ? BUSY : IDLE);
}

// Gives a parent one child for each item, in their order, and keeps those that are there: a form may be in use
function synchronize(parent, items, make, show) {
  const known = new Map([...parent.children].map(child => [child.dataset.id, child]));
  items.forEach((item, place) => {
    const child = known.get(item.id) || make(item);
    known.delete(item.id);
    child.dataset.id = item.id;
    if (parent.children[place] !== child) parent.insertBefore(child, parent.children[place] || null);
    show(child, item);
  });
  known.forEach(child => child.remove());
}

// ---------------------------------------------------------------- sending a file

function send(file) {
  const box = byId('sending'), bar = box.querySelector('progress'), state = box.querySelector('.state');
  if (sending) return say(byId('problem'), 'Another file is being sent. Wait, or cancel it.');
  if (file.size > about.max_bytes) {
    return say(byId('problem'), `${file.name} has ${bytesText(file.size)}; this server takes at most ` +
                                `${bytesText(about.max_bytes)}.`);
  }
  say(byId('problem'), '');
  box.querySelector('.name').textContent = file.name;
  state.textContent = 'sending';
  bar.value = 0;
  box.hidden = false;
  const request = sending = new XMLHttpRequest();  // unlike fetch, it reports the progress of sending
  request.upload.onprogress = event => { bar.value = event.loaded / event.total; };
  request.upload.onload = () => {
    state.textContent = 'reading the file';
    bar.removeAttribute('value');
  };
  request.onloadend = () => {
    sending = null;
    box.hidden = true;
    byId('file').value = '';
    let message = '';
    if (request.status !== 200 && request.status) {
      try {
        message = JSON.parse(request.responseText).error;
      } catch {
        message = request.responseText || 'The server failed; its terminal says why.';
      }
    } else if (!request.status && !request.wasCancelled) {
      message = 'The file could not be sent: the server does not answer.';
    }
    say(byId('problem'), message);
    refresh();
  };
  request.open('POST', `/api/uploads?name=${encodeURIComponent(file.name)}`);
  request.send(file);
}

// ---------------------------------------------------------------- an upload and its form

const bytesText = bytes => bytes >= 1e9 ? `${+(bytes / 1e9).toFixed(1)} GB` : `${Math.ceil(bytes / 1e6)} MB`;

function clockText(seconds) {
  const whole = Math.round(seconds), parts = [Math.floor(whole / 60) % 60, whole % 60];
  const [minutes, rest] = parts.map(part => String(part).padStart(2, '0'));
  return whole >= 3600 ? `${Math.floor(whole / 3600)}:${minutes}:${rest}` : `${Number(minutes)}:${rest}`;
}

function leftText(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

const rateOf = facts => facts.rate ? facts.rate.split('/').map(Number).reduce((whole, part) => whole / part) : 0;

// Seconds of 90, 1:30 or 0:01:30; null of an empty text
function secondsOf(text, name) {
  if (!text.trim()) return null;
  const parts = text.trim().split(':').map(part => part === '' ? NaN : Number(part));
  if (parts.some(part => !(part >= 0)) || parts.length > 3) {
    throw new Error(`${name} "${text}" is no time; write seconds, or minutes:seconds.`);
  }
  return parts.reduce((total, part) => 60 * total + part);
}

function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => value === chosen)) select.value = chosen;
}

const modelOf = form => about.models.find(model => model.name === form.elements.model.value);

// Sizes and rates depend on the model and on the file
function offer(form, upload) {
  const {scale, temporal_scale: temporal, about: text} = modelOf(form);
  const {width, height} = upload.facts, rate = rateOf(upload.facts);
  form.querySelector('.about').textContent = text;
  const sized = factor => `${Math.round(width * factor)}\u00d7${Math.round(height * factor)}`;
  const sizes = [['model', `${scale === 1 ? 'as it is' : `\u00d7${scale}`}: ${sized(scale)}`]];
  for (const factor of SCALES) {
    if (factor !== scale) sizes.push([`x${factor}`, `${factor === 1 ? 'as it is' : `\u00d7${factor}`}: ${sized(factor)}`]);
  }
  for (const lines of HEIGHTS) {
    if (lines <= 8 * height) sizes.push([`h${lines}`, `${lines} lines`]);
  }
  fill(form.elements.size, sizes, form.elements.size.value);
  const shown = number => `${+number.toFixed(2)} fps`;
  const rates = [['double', `twice: ${shown(2 * rate)}`], ...RATES.map(number => [String(number), shown(number)])];
  if (scale > 1) rates.unshift(['keep', `as it is: ${shown(rate)}`]);
  const before = form.elements.rate.value;
  fill(form.elements.rate, rates, form.dataset.choseRate ? before : temporal > 1 ? 'double' : 'keep');
}

function settingsOf(form, isPreview) {
  const size = form.elements.size.value, rate = form.elements.rate.value;
  return {
    model: form.elements.model.value,
    scale: size.startsWith('x') ? Number(size.slice(1)) : null,
    height: size.startsWith('h') ? Number(size.slice(1)) : null,
    rate: Number(rate) || rate,
    start: secondsOf(form.elements.start.value, 'Start') || 0,
    duration: secondsOf(form.elements.duration.value, 'Duration'),
    preview: isPreview,
  };
}

function makeUpload(upload) {
  const box = byId('upload').content.firstElementChild.cloneNode(true);
  const form = box.querySelector('form'), {width, height, duration, frames} = upload.facts;
  const rate = rateOf(upload.facts), moves = !upload.is_image;
  box.querySelector('.name').textContent = upload.name;
  const time = duration ? clockText(duration) : frames ? `${frames} frames` : 'unknown length';
  box.querySelector('.facts').textContent = `${width}\u00d7${height}` +
      (moves ? `, ${time}${rate ? `, ${+rate.toFixed(2)} frames a second` : ''}` : '');
  box.querySelectorAll('.moving').forEach(element => { element.hidden = !moves; });
  const models = moves ? about.models : about.models.filter(model => model.scale > 1 && model.temporal_scale === 1);
  fill(form.elements.model, models.map(model => [model.name, model.name]), moves ? '' : IMAGE_MODEL);
  const [preview, all] = form.querySelectorAll('button');
  preview.textContent = `Preview ${about.preview_seconds} seconds`;
  all.textContent = moves ? 'Restore all' : 'Restore';
  offer(form, upload);
  form.elements.model.addEventListener('change', () => offer(form, upload));
  form.elements.rate.addEventListener('change', () => { form.dataset.choseRate = 'yes'; });
  form.addEventListener('input', () => {
    const isPart = form.elements.start.value.trim() || form.elements.duration.value.trim();
    if (moves) all.textContent = isPart ? 'Restore this part' : 'Restore all';
  });
  form.addEventListener('submit', event => {
    event.preventDefault();
    act(() => ask(`/api/uploads/${upload.id}/runs`, 'POST', settingsOf(form, event.submitter === preview)),
        form.querySelector('.error'));
  });
  box.querySelector('.remove').addEventListener('click', () => act(() => ask(`/api/uploads/${upload.id}`, 'DELETE')));
  return box;
}

function showUpload(box, upload) {
  say(box.querySelector('.estimate'), estimate(upload));
  synchronize(box.querySelector('.runs'), upload.runs.reverse(), makeRun, showRun);
}

// How long all of it would take, by the newest preview
function estimate({facts, runs}) {
  const preview = runs.filter(run => run.settings.preview && run.state === 'done' && run.result.seconds).pop();
  if (!preview || !facts.duration || !preview.seconds) return '';
  const seconds = preview.result.seconds * facts.duration / Math.min(preview.seconds, facts.duration);
  return `With the settings of the newest preview, all of it takes about ${leftText(seconds)}.`;
}

// ---------------------------------------------------------------- a run

const isActive = run => ['waiting', 'running', 'comparing'].includes(run.state);

function settingsText({model, scale, height, rate, start, duration, preview}) {
  const parts = [model];
  if (scale) parts.push(`\u00d7${scale}`);
  if (height) parts.push(`${height} lines`);
  if (rate === 'double') parts.push('twice the rate');
  if (typeof rate === 'number') parts.push(`${rate} fps`);
  if (start) parts.push(`from ${clockText(Math.floor(start))}${String(+(start % 1).toFixed(2)).slice(1)}`);
  if (duration && !preview) parts.push(`for ${clockText(duration)}`);
  return parts.join(', ');
}

function stateText(run) {
  const {frames, total, remaining, num_before: before, message, result} = run;
  const place = total ? `frame ${frames} of ${total}` : `frame ${frames}`;
  switch (run.state) {
    case 'waiting': return before ? `Waiting; ${before} before it.` : 'Waiting.';
    case 'running':
      if (!frames) return 'Starting\u2026';
      return `Restoring: ${place}` + (remaining ? `; about ${leftText(remaining)} left` : '');
    case 'comparing': return `Restored. Making the comparison: ${place}`;
    case 'stopped': return 'Stopped. Resume continues after the last finished part.';
    case 'failed': return `It failed: ${message}`;
    default: {
      const facts = result.width ? `${result.frames} frame${result.frames > 1 ? 's' : ''}, ` +
                                   `${result.width}\u00d7${result.height}, in ${leftText(result.seconds)}.` : '';
      return `Done: ${facts} ${message}`;
    }
  }
}

function makeRun(run) {
  const box = byId('run').content.firstElementChild.cloneNode(true);
  const compare = box.querySelector('.compare'), frame = box.querySelector('iframe');
  box.querySelector('.settings').textContent = settingsText(run.settings);
  box.querySelector('.download').href = `/api/runs/${run.id}/result`;
  for (const [name, path, method] of [['cancel', '/cancel', 'POST'], ['resume', '/resume', 'POST'],
                                      ['remove', '', 'DELETE']]) {
    box.querySelector(`.${name}`).addEventListener('click', () => act(() => ask(`/api/runs/${run.id}${path}`, method)));
  }
  compare.addEventListener('click', () => showComparison(compare, frame, run, frame.hidden));
  box.dataset.wasActive = isActive(run) ? 'yes' : '';
  return box;
}

function showComparison(button, frame, run, isShown) {
  if (isShown && !frame.src) frame.src = `/api/runs/${run.id}/comparison`;
  frame.hidden = !isShown;
  button.setAttribute('aria-expanded', isShown);
  button.textContent = isShown ? 'Hide comparison' : 'Compare';
}

function showRun(box, run) {
  const bar = box.querySelector('progress'), state = box.querySelector('.state');
  const show = (name, isShown) => { box.querySelector(`.${name}`).hidden = !isShown; };
  box.classList.toggle('failed', run.state === 'failed');
  box.querySelector('.title').textContent = run.settings.preview ? 'Preview' : 'Result';
  if (state.textContent !== stateText(run)) state.textContent = stateText(run);
  bar.hidden = !isActive(run) || run.state === 'waiting';
  if (run.total && run.frames) bar.value = run.frames / run.total;
  else bar.removeAttribute('value');
  show('cancel', isActive(run));
  show('resume', run.state === 'stopped' || run.state === 'failed');
  show('download', run.has_output);
  show('compare', run.has_page);
  show('remove', !isActive(run));
  // What was waited for is opened
  if (box.dataset.wasActive && run.has_page) {
    showComparison(box.querySelector('.compare'), box.querySelector('iframe'), run, true);
  }
  box.dataset.wasActive = isActive(run) ? 'yes' : '';
}

// ---------------------------------------------------------------- start

byId('file').addEventListener('change', event => { if (event.target.files.length) send(event.target.files[0]); });
byId('sending').querySelector('.stop').addEventListener('click', () => {
  sending.wasCancelled = true;
  sending.abort();
});
for (const type of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(type, event => {
    event.preventDefault();
    byId('drop').classList.toggle('over', type === 'dragover');
    if (type !== 'drop' || !event.dataTransfer.files.length) return;
    send(event.dataTransfer.files[0]);
    if (event.dataTransfer.files.length > 1) say(byId('problem'), 'One file at a time: the first was taken.');
  });
}

(async () => {
  try {
    about = await ask('/api/about');
  } catch (error) {
    return say(byId('lost'), error.message);
  }
  byId('limits').textContent = `up to ${bytesText(about.max_bytes)}; removed ${about.keep_hours} hours after the last use`;
  await refresh();
})();
