/* The explorer's own script: rows of clips that are drawn, played and followed. No library, no build.
   Names are only ever put in as text; styles are set by properties, never by markup. */
"use strict";
(() => {
  const $ = (what, root = document) => root.querySelector(what);
  const all = (what, root = document) => [...root.querySelectorAll(what)];
  const root = document.documentElement;
  root.classList.add("scripted");

  const PICTURE_HEADER = 28, TRACE_HEADER = 20;
  const MEL = { knee: 1000, perMel: 200 / 3, kneeMel: 15, step: Math.log(6.4) / 27 };
  const mel = (hz) => hz < MEL.knee ? hz / MEL.perMel : MEL.kneeMel + Math.log(hz / MEL.knee) / MEL.step;
  const seconds = (t) => t.toFixed(2) + " s";
  const figure = (x) => Number(x.toPrecision(4)).toString().replace("-", "\u2212");
  const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

  const player = $("#player"), audio = $("#audio");
  const state = player ? { show: player.dataset.show, level: player.dataset.level } : {};
  const rows = [];
  let current = null, queue = [], scale = 0, waiting = 0;

  /* What was read of a row */

  async function read(url) {
    const answer = await fetch(url);
    if (answer.ok) return new DataView(await answer.arrayBuffer());
    let why = answer.status + " " + answer.statusText;
    try { why = (await answer.json()).error; } catch { /* it was no JSON */ }
    throw new Error(why);
  }

  function picture(view) {
    const f = (i) => view.getFloat32(4 + 4 * i, true);
    const rows = view.getUint16(0, true), columns = view.getUint16(2, true);
    return {
      rows, columns, step: f(0), seconds: f(1), whole: f(2), low: mel(f(3)), high: mel(f(4)), gain: f(5),
      pixels: new Uint8Array(view.buffer, PICTURE_HEADER, rows * columns),
    };
  }

  function trace(view) {
    const f = (i) => view.getFloat32(4 * i, true), n = view.getUint32(0, true), frames = [];
    const found = { frames, stored: f(1), mean: f(2), seconds: f(3), whole: f(4), highest: -Infinity };
    for (let i = 0; i < n; i++) {
      const at = TRACE_HEADER / 4 + 5 * i;
      const frame = { t0: f(at), t1: Math.min(f(at + 1), found.seconds), f0: f(at + 2), f1: f(at + 3), value: f(at + 4) };
      if (frame.t0 >= found.seconds) continue;  // silence that the clip was filled up with
      frames.push(frame);
      if (frame.value > found.highest) { found.highest = frame.value; found.at = frame; }
    }
    found.bands = new Set(frames.map((x) => x.f0 + " " + x.f1)).size;
    return found;
  }

  /* The line over time: at each of n steps the maximum, or mean, of the frames that cover it; NaN where none does. */
  function line(found, whole, n, kind) {
    const value = new Float32Array(n).fill(NaN), count = new Uint16Array(n);
    for (const frame of found.frames) {
      const from = Math.max(0, Math.round(frame.t0 / whole * n)), to = Math.min(n, Math.max(Math.round(frame.t1 / whole * n), from + 1));
      for (let i = from; i < to; i++) {
        if (!count[i]) value[i] = frame.value;
        else if (kind === "mean") value[i] += frame.value;
        else if (frame.value > value[i]) value[i] = frame.value;
        count[i]++;
      }
    }
    if (kind === "mean") for (let i = 0; i < n; i++) if (count[i]) value[i] /= count[i];
    return value;
  }

  function activeParts(found) {
    const n = 1000, heights = line(found, found.seconds, n, "maximum"), half = found.highest / 2, parts = [];
    if (!(half > 0)) return parts;
    for (let i = 0; i < n; i++) {
      if (!(heights[i] > half)) continue;
      const a = i / n * found.seconds, b = (i + 1) / n * found.seconds, last = parts[parts.length - 1];
      if (last && a - last[1] < 0.03) last[1] = b; else parts.push([a, b]);
    }
    return parts;
  }

  /* Colours are the page's */

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  function rgb(text) {
    const n = parseInt(text.slice(1), 16);
    return [n >> 16, n >> 8 & 255, n & 255];
  }
  function shades() {
    const [from, to] = [rgb(colour("--picture-low")), rgb(colour("--picture-high"))];
    return Array.from({ length: 256 }, (_, i) => from.map((x, k) => Math.round(x + (to[k] - x) * i / 255)));
  }

  class Row {
    constructor(element) {
      this.element = element;
      this.screen = $(".screen", element); this.canvas = $("canvas", element); this.said = $(".said", element);
      this.button = $(".play", element); this.link = $(".wav", element);
      this.name = $(".clipname", element).textContent;
      this.length = 0; this.whole = 1; this.position = 0; this.loop = null; this.parts = [];
      this.button.addEventListener("click", () => this.isPlaying() ? stop() : play(this));
      this.screen.addEventListener("keydown", (event) => this.key(event));
      this.screen.addEventListener("pointerdown", (event) => this.pointer(event));
    }

    get sound() { return this.element.dataset[state.level === "matched" ? "matched" : "sound"]; }
    isPlaying() { return current === this && !audio.paused; }

    async load() {
      if (this.begun) return;
      this.begun = true; waiting++;
      this.element.dataset.state = "reading";
      try {
        this.picture = picture(await read(this.element.dataset.picture));
        this.length = this.picture.seconds; this.whole = this.picture.whole;
        this.element.dataset.state = "picture";
        this.update();
        if (this.element.dataset.trace) {
          this.said.textContent = "reading what the neuron did";
          this.trace = trace(await read(this.element.dataset.trace));
          this.parts = activeParts(this.trace);
          this.element.dataset.state = "trace";
        }
        this.update();
      } catch (error) {
        this.problem = error.message;
        this.element.dataset.state = "problem";
        this.update();
      }
      if (this.trace && this.trace.highest > scale) { scale = this.trace.highest; rows.forEach((row) => row.draw()); }
      waiting--;
      ready();
    }

    update() {
      this.describe();
      this.draw();
      this.move(this.position);
    }

    describe() {
      const parts = [];
      if (this.picture) {
        parts.push(seconds(this.length));
        if (state.level === "matched") parts.push((this.picture.gain < 0 ? "\u2212" : "+") + Math.abs(this.picture.gain).toFixed(1) + " dB");
      }
      if (this.trace && this.trace.at) {
        const { at, mean, stored, highest } = this.trace, apart = Math.abs(mean - stored);
        parts.push("highest " + figure(highest) + " at " + at.t0.toFixed(2) + " to " + seconds(at.t1) + (this.trace.bands > 1 ? ", " + Math.round(at.f0) + " to " + Math.round(at.f1) + " Hz" : ""));
        parts.push("mean of the frames " + figure(mean) + ", stored " + figure(stored));
        if (apart > 0.01 * Math.max(Math.abs(highest), Math.abs(stored))) parts.push("these differ by more than 1 % of the highest: the sound or the encoder is not the one that was extracted");
      }
      if (this.problem) parts.push(this.problem);
      this.said.textContent = parts.join(" \u00b7 ");
      this.said.classList.toggle("bad", Boolean(this.problem));
      if (this.problem && !this.picture) { this.screen.hidden = true; this.button.disabled = true; this.link.hidden = true; }
      this.screen.setAttribute("aria-valuemax", this.length.toFixed(2));
    }

    draw() {
      const box = this.screen.getBoundingClientRect();
      if (!this.picture || !box.width) return;
      const dense = window.devicePixelRatio || 1, w = Math.round(box.width * dense), h = Math.round(box.height * dense);
      if (this.canvas.width !== w || this.canvas.height !== h) { this.canvas.width = w; this.canvas.height = h; }
      const g = this.canvas.getContext("2d"), split = this.element.dataset.trace ? Math.round(0.7 * h) : h;
      const x = (t) => t / this.whole * w;
      g.fillStyle = colour("--picture-low");
      g.fillRect(0, 0, w, h);
      this.drawPicture(g, w, split);
      if (this.trace) {
        if (state.show === "grid" && this.trace.bands > 1) this.drawGrid(g, x, split);
        this.drawLine(g, w, split, h, dense);
      }
      if (this.whole > this.length) {
        g.fillStyle = colour("--padding");
        g.fillRect(Math.round(x(this.length)), 0, w, h);
      }
    }

    drawPicture(g, w, height) {
      const p = this.picture, light = shades(), image = new ImageData(p.columns, p.rows);
      for (let band = 0; band < p.rows; band++)
        for (let k = 0; k < p.columns; k++) {
          const at = 4 * ((p.rows - 1 - band) * p.columns + k), [r, gr, b] = light[p.pixels[band * p.columns + k]];
          image.data[at] = r; image.data[at + 1] = gr; image.data[at + 2] = b; image.data[at + 3] = 255;
        }
      const small = document.createElement("canvas");
      small.width = p.columns; small.height = p.rows;
      small.getContext("2d").putImageData(image, 0, 0);
      // Column k is around k steps; band b is around the edge b + 1 of n + 1.
      const left = -0.5 * p.step / this.whole * w, wide = p.columns * p.step / this.whole * w, bin = height / (p.rows + 1);
      g.save();
      g.beginPath(); g.rect(0, 0, w * this.length / this.whole, height); g.clip();
      g.imageSmoothingEnabled = wide < p.columns;
      g.drawImage(small, left, bin / 2, wide, height - bin);
      g.restore();
    }

    drawGrid(g, x, height) {
      const p = this.picture, y = (hz) => height * (1 - clamp((mel(hz) - p.low) / (p.high - p.low), 0, 1));
      const tone = rgb(colour("--active")).join(", ");
      for (const frame of this.trace.frames) {
        const strength = frame.value / (scale || 1);
        if (!(strength > 0.02)) continue;
        const left = x(frame.t0), top = y(frame.f1);
        g.fillStyle = `rgba(${tone}, ${(0.75 * Math.min(strength, 1)).toFixed(3)})`;
        g.fillRect(left, top, x(frame.t1) - left, y(frame.f0) - top);
      }
    }

    drawLine(g, w, top, bottom, dense) {
      const values = line(this.trace, this.whole, w, state.show === "mean" ? "mean" : "maximum");
      let lowest = 0;
      for (const value of values) if (value < lowest) lowest = value;
      const highest = scale > 0 ? scale : 1, room = bottom - top - 2 * dense;
      const y = (value) => bottom - dense - room * (clamp(value, lowest, highest) - lowest) / (highest - lowest);
      g.fillStyle = colour("--strip");
      g.fillRect(0, top, w, bottom - top);
      g.fillStyle = colour("--active");
      for (let i = 0; i < w; i++) {
        if (Number.isNaN(values[i])) continue;
        const a = y(values[i]), b = y(0);
        g.fillRect(i, Math.min(a, b), 1, Math.max(Math.abs(b - a), dense));
      }
    }

    /* The cursor, in pixels of the screen */
    move(t) {
      this.position = clamp(t, 0, this.length || 0);
      const wide = this.screen.clientWidth, cursor = $(".cursor", this.screen), mark = $(".loop", this.screen);
      cursor.style.transform = `translateX(${(this.position / this.whole * wide).toFixed(2)}px)`;
      this.screen.classList.toggle("current", current === this);
      if (this.loop) {
        mark.style.left = `${this.loop[0] / this.whole * wide}px`;
        mark.style.width = `${(this.loop[1] - this.loop[0]) / this.whole * wide}px`;
      }
      this.screen.classList.toggle("looping", Boolean(this.loop));
      const now = this.position.toFixed(2);
      const text = this.valueText();
      if (this.screen.getAttribute("aria-valuenow") !== now) this.screen.setAttribute("aria-valuenow", now);
      if (this.screen.getAttribute("aria-valuetext") !== text) this.screen.setAttribute("aria-valuetext", text);
    }

    valueText() {
      let text = `${this.position.toFixed(2)} of ${seconds(this.length)}`;
      if (this.trace) {
        const here = this.trace.frames.filter((f) => f.t0 <= this.position && this.position < f.t1).map((f) => f.value);
        if (here.length) text += `, activation ${figure(Math.max(...here))}`;
      }
      return this.loop ? `${text}, repeating ${this.loop[0].toFixed(2)} to ${seconds(this.loop[1])}` : text;
    }

    time(event) {
      const box = this.screen.getBoundingClientRect();
      return clamp((event.clientX - box.left) / box.width * this.whole, 0, this.length);
    }

    pointer(event) {
      if (event.button) return;
      const from = this.time(event), start = event.clientX;
      const dragged = (e) => Math.abs(e.clientX - start) > 4;
      const onmove = (e) => { if (dragged(e)) this.repeat(from, this.time(e)); };
      const onup = (e) => {
        this.screen.removeEventListener("pointermove", onmove);
        if (!dragged(e)) { this.loop = null; play(this, from); return; }
        this.repeat(from, this.time(e));
        if (this.loop) play(this, this.loop[0]);
      };
      this.screen.setPointerCapture(event.pointerId);
      this.screen.addEventListener("pointermove", onmove);
      this.screen.addEventListener("pointerup", onup, { once: true });
    }

    repeat(a, b) {
      const part = [Math.min(a, b), Math.max(a, b)];
      this.loop = part[1] - part[0] >= 0.02 ? part : null;
      this.move(this.position);
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const step = event.shiftKey ? 0.01 : 0.05;
      const to = { ArrowLeft: this.position - step, ArrowRight: this.position + step, Home: 0, End: this.length }[event.key];
      if (to !== undefined) seek(this, to);
      else if (event.key === " " || event.key === "Enter") this.isPlaying() ? stop() : play(this, this.position);
      else if (event.key === "[") this.repeat(this.position, this.loop ? this.loop[1] : this.length);
      else if (event.key === "]") this.repeat(this.loop ? this.loop[0] : 0, this.position);
      else if (event.key === "Escape" && this.loop) { this.loop = null; this.move(this.position); }
      else return;
      event.preventDefault();
    }
  }

  /* One audio element for all rows */

  function take(row) {
    if (current !== row && current) { const former = current; current = row; former.move(0); mark(former); }
    current = row;
    const url = new URL(row.sound, location.href).href;
    if (audio.src !== url) { audio.src = url; audio.preload = "auto"; audio.load(); }
  }

  function seek(row, t) {
    take(row);
    row.move(t);
    const to = row.position;
    if (audio.readyState >= 1) audio.currentTime = to;
    else audio.addEventListener("loadedmetadata", () => { if (current === row) audio.currentTime = to; }, { once: true });
  }

  async function play(row, from) {
    const parts = partsOf(row);
    if (from === undefined) from = row.loop ? row.loop[0] : parts.length ? parts[0][0] : row.position < row.length - 0.01 ? row.position : 0;
    if (!queue.includes(row)) queue = [];
    seek(row, from);
    try {
      await audio.play();
    } catch (error) {
      if (error.name === "AbortError") return;
      row.problem = audio.error ? "the sound cannot be played; open its link for the reason" : error.message;
      row.describe();
    }
    follow();
  }

  function stop() { queue = []; audio.pause(); if (current) mark(current); }

  const partsOf = (row) => $("#part").checked && !row.loop ? row.parts : [];

  function mark(row) {
    row.element.classList.toggle("playing", row.isPlaying());
    row.button.setAttribute("aria-label", (row.isPlaying() ? "Stop " : "Play ") + row.name);
    $("#stop").disabled = audio.paused;
    $("#now").textContent = audio.paused ? "" : "playing " + (current ? current.name : "");
  }

  function next() {
    const row = current;
    row.move(row.length);
    mark(row);
    const after = queue[queue.indexOf(row) + 1];
    if (queue.includes(row) && after) { after.position = 0; after.element.scrollIntoView({ block: "nearest" }); play(after); }
    else queue = [];
  }

  function follow() {
    if (!current || audio.paused) return;
    const row = current, t = audio.currentTime, parts = partsOf(row);
    if (row.loop && (t >= row.loop[1] || t < row.loop[0] - 0.05)) audio.currentTime = row.loop[0];
    else if (parts.length && !parts.some(([a, b]) => a - 0.02 <= t && t < b)) {
      const ahead = parts.find(([a]) => a > t);
      if (ahead) audio.currentTime = ahead[0];
      else { audio.pause(); next(); return; }
    }
    row.move(audio.currentTime);
    requestAnimationFrame(follow);
  }

  function ready() {
    if (!waiting) root.dataset.ready = "yes"; else delete root.dataset.ready;
  }

  function keep(name, value, usual) {
    const write = (href) => {
      const url = new URL(href, location.href);
      if (value === usual) url.searchParams.delete(name); else url.searchParams.set(name, value);
      return url;
    };
    history.replaceState(history.state, "", write(location.href));
    for (const link of all('a[href^="/t/"]')) { const url = write(link.getAttribute("href")); link.setAttribute("href", url.pathname + url.search + url.hash); }
    for (const form of all('form[action^="/t/"]')) {
      let field = $(`input[name="${name}"]`, form);
      if (!field) { field = document.createElement("input"); field.type = "hidden"; field.name = name; form.append(field); }
      if (value === usual) field.remove(); else field.value = value;
    }
  }

  function startRows() {
    for (const element of all(".row[data-picture]")) rows.push(new Row(element));
    const byElement = new Map(rows.map((row) => [row.element, row]));
    const watch = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) { watch.unobserve(entry.target); byElement.get(entry.target).load(); }
      ready();
    }, { rootMargin: "300px" });
    rows.forEach((row) => watch.observe(row.element));
    let width = 0;
    new ResizeObserver(() => { if (rows[0] && rows[0].screen.clientWidth !== width) { width = rows[0].screen.clientWidth; rows.forEach((row) => { row.draw(); row.move(row.position); }); } }).observe(document.body);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => rows.forEach((row) => row.draw()));
    for (const event of ["play", "pause"]) audio.addEventListener(event, () => current && mark(current));
    audio.addEventListener("ended", () => { if (current.loop) { audio.currentTime = current.loop[0]; audio.play(); follow(); } else next(); });
    audio.addEventListener("seeked", () => current && current.move(audio.currentTime));
    $("#stop").addEventListener("click", stop);
    $("#show").addEventListener("change", (event) => { state.show = event.target.value; keep("show", state.show, "grid"); rows.forEach((row) => row.draw()); });
    $("#level").addEventListener("change", (event) => {
      state.level = event.target.value;
      keep("loudness", state.level, "heard");
      rows.forEach((row) => { row.link.setAttribute("href", row.sound); row.describe(); });
      if (current) { const playing = !audio.paused, t = audio.currentTime; playing ? play(current, t) : seek(current, t); }
    });
    rows.forEach((row) => row.link.setAttribute("href", row.sound));
    for (const button of all(".playall")) button.addEventListener("click", () => {
      queue = rows.filter((row) => button.closest(".rows").contains(row.element) && !row.button.disabled);
      if (queue.length) { queue[0].position = 0; play(queue[0]); }
    });
  }

  /* A range of the histogram */
  function startHistogram() {
    const box = $("#histogram"), form = $("#range");
    if (!box || !form) return;
    const [low, high] = [Number(box.dataset.low), Number(box.dataset.high)];
    box.addEventListener("pointerdown", (event) => {
      const share = (e) => { const b = box.getBoundingClientRect(); return clamp((e.clientX - b.left) / b.width, 0, 1); };
      const from = share(event), band = $(".range", box);
      box.setPointerCapture(event.pointerId);
      const onmove = (e) => { const [a, b] = [from, share(e)].sort((x, y) => x - y); band.setAttribute("x", 1000 * a); band.setAttribute("width", 1000 * (b - a)); };
      box.addEventListener("pointermove", onmove);
      box.addEventListener("pointerup", (e) => {
        box.removeEventListener("pointermove", onmove);
        const [a, b] = [from, share(e)].sort((x, y) => x - y);
        if (b - a < 0.004) { band.setAttribute("width", 0); return; }
        form.elements.low.value = a ? low + a * (high - low) : low;
        form.elements.high.value = b < 1 ? low + b * (high - low) : high;
        form.submit();
      }, { once: true });
    });
  }

  /* Parts of the home page that take a moment */
  async function startFragments() {
    for (const element of all("[data-fragment]")) {
      for (let tries = 0; tries < 300; tries++) {
        try {
          const answer = await fetch(element.dataset.fragment);
          if (answer.status === 202) { $("p", element).textContent = "Computing …"; await new Promise((done) => setTimeout(done, 2000)); continue; }
          const found = new DOMParser().parseFromString(await answer.text(), "text/html");
          if (answer.ok) element.replaceChildren(...found.body.childNodes);
          else $("p", element).textContent = ($(".lead", found) || found.body).textContent;
        } catch { /* the server is gone, or the page: the link remains */ }
        break;
      }
    }
    ready();
  }

  startHistogram();
  if (audio && $(".row[data-picture]")) startRows();
  else if ($("[data-fragment]")) startFragments();
  else ready();
})();
