/**
 * The plot of a record: events in all over time, as a staircase, and below it a mark for each arrival.
 *
 * An even stream is a straight line over an even fence. Whatever collects events on the way makes steps, and
 * tall marks with nothing between them.
 */

/** Lengths of the time axis, in seconds. Beyond the last one the plot shows the newest part. */
const SPANS = [4, 8, 12, 20, 40, 60];

const LEFT = 40;
const RIGHT = 12;
const TOP = 12;
const FENCE = 30; // the height of the marks' lane
const BEATS = 14; // that of the heartbeats'
const AXIS = 20;

/** Draw `record` as of `now`. `colours` are a page's: ink, quiet, line, accent, alarm, alarmWash. */
export function draw(canvas, record, now, colours) {
  const { width, height, pen } = prepared(canvas);
  const elapsed = (now - record.began) / 1000;
  const span = SPANS.find((length) => length >= elapsed) ?? SPANS.at(-1);
  const start = record.began + Math.max(0, elapsed - span) * 1000;
  const x = (at) => LEFT + ((at - start) / (span * 1000)) * (width - LEFT - RIGHT);
  const base = height - AXIS - BEATS - FENCE;
  const firstShown = lowerBound(record.arrivals, start);
  const low = firstShown === 0 ? 0 : record.forgotten + firstShown;
  const high = low + niceCeiling(Math.max(10, record.events - low));
  const y = (count) => base - ((count - low) / (high - low)) * (base - TOP);

  pen.font = `11px ${getComputedStyle(canvas).fontFamily}`;
  axes({ pen, width, height, base, x, y, low, high, start, span, began: record.began, colours });
  outages({ pen, record, now, x, height, start, colours });
  staircase({ pen, record, firstShown, low, x, y, now, colours });
  fence({ pen, record, firstShown, x, base, colours });
  heartbeats({ pen, record, x, at: height - AXIS - BEATS / 2, start, colours });
}

/** The canvas in CSS pixels, as sharp as the screen is. */
function prepared(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = globalThis.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { width, height, pen };
}

function axes({ pen, width, height, base, x, y, low, high, start, span, began, colours }) {
  pen.strokeStyle = colours.line;
  pen.fillStyle = colours.quiet;
  pen.lineWidth = 1;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const count of [low, (low + high) / 2, high]) {
    line(pen, LEFT, Math.round(y(count)) + 0.5, width - RIGHT, Math.round(y(count)) + 0.5);
    pen.fillText(String(Math.round(count)), LEFT - 8, y(count));
  }
  pen.textBaseline = "alphabetic";
  const step = span / (width < 420 ? 2 : 4);
  const first = Math.ceil((start - began) / 1000 / step) * step;
  for (let seconds = first; seconds <= (start - began) / 1000 + span + 1e-6; seconds += step) {
    const at = x(began + seconds * 1000);
    line(pen, Math.round(at) + 0.5, base, Math.round(at) + 0.5, height - AXIS + 3);
    pen.textAlign = at > width - 40 ? "right" : "center";
    pen.fillText(`${Number(seconds.toFixed(1))} s`, Math.min(at, width - 4), height - 4);
  }
}

/** Where there was no connection: a band from the drop to the resume. */
function outages({ pen, record, now, x, height, start, colours }) {
  for (const { at } of record.drops) {
    const resumed = record.resumes.find((resume) => resume.at >= at);
    const until = resumed?.at ?? record.endedAt ?? now;
    if (until < start) continue;
    const left = Math.max(x(at), LEFT);
    pen.fillStyle = colours.alarmWash;
    pen.fillRect(left, TOP, Math.max(x(until) - left, 1), height - AXIS - TOP);
    if (at >= start) {
      pen.strokeStyle = colours.alarm;
      pen.lineWidth = 1.5;
      pen.setLineDash([3, 3]);
      line(pen, left, TOP, left, height - AXIS);
      pen.setLineDash([]);
    }
  }
  pen.strokeStyle = colours.accent;
  pen.lineWidth = 1.5;
  for (const { at } of record.resumes) if (at >= start) line(pen, x(at), TOP, x(at), height - AXIS);
}

function staircase({ pen, record, firstShown, low, x, y, now, colours }) {
  const { arrivals } = record;
  if (!arrivals.length) return;
  pen.strokeStyle = colours.accent;
  pen.lineWidth = 1.75;
  pen.lineJoin = "round";
  pen.beginPath();
  let count = firstShown === 0 ? 0 : low;
  pen.moveTo(firstShown === 0 ? x(record.began) : LEFT, y(count));
  for (let index = firstShown; index < arrivals.length; index += 1) {
    const at = x(arrivals[index]);
    pen.lineTo(at, y(count));
    count += 1;
    pen.lineTo(at, y(count));
  }
  pen.lineTo(x(record.endedAt ?? now), y(count));
  pen.stroke();
}

/** A mark for each moment in which something came, the taller the more. */
function fence({ pen, record, firstShown, x, base, colours }) {
  const { arrivals } = record;
  pen.strokeStyle = colours.ink;
  pen.lineWidth = 1;
  pen.beginPath();
  let index = firstShown;
  while (index < arrivals.length) {
    const at = Math.round(x(arrivals[index])) + 0.5;
    let number = 0;
    for (; index < arrivals.length && Math.round(x(arrivals[index])) + 0.5 === at; index += 1) number += 1;
    pen.moveTo(at, base + FENCE - 2);
    pen.lineTo(at, base + FENCE - 2 - Math.min(FENCE - 4, 7 + 5 * Math.log2(number)));
  }
  pen.stroke();
}

function heartbeats({ pen, record, x, at, start, colours }) {
  pen.strokeStyle = colours.quiet;
  pen.lineWidth = 1.5;
  for (const beat of record.beats) {
    if (beat < start) continue;
    pen.beginPath();
    pen.arc(x(beat), at, 3.5, 0, 2 * Math.PI);
    pen.stroke();
  }
}

function line(pen, x1, y1, x2, y2) {
  pen.beginPath();
  pen.moveTo(x1, y1);
  pen.lineTo(x2, y2);
  pen.stroke();
}

/** The index of the first number of an ascending list that is not below `value`. */
function lowerBound(numbers, value) {
  let low = 0;
  let high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The next number of the kind 10, 20, 30, 40, 60, 80, 100 … */
function niceCeiling(number) {
  const power = 10 ** Math.floor(Math.log10(number));
  return [1, 2, 3, 4, 6, 8, 10].map((factor) => factor * power).find((candidate) => candidate >= number);
}
