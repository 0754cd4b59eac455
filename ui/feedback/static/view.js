// Feedback on one or several pictures: shared controls above, one item a picture below.

import { make } from "./dom.js";
import { MEANINGS, STOPS, TITLES, gradient } from "./heatmap.js";
import { Stage } from "./stage.js";
import { KINDS, Words } from "./words.js";

const SCORES = {
  plausibility: "nothing in it is broken",
  alignment: "it shows what the prompt says",
  aesthetics: "it looks good",
  overall: "taken together",
};
const SCALE = "0 is worst, 1 is best; the ticks are the five steps of the raters' scale, a thin line over a bar is its 90% interval.";

/** One picture with everything that is said about it. */
class Item {
  constructor(mode) {
    this.mode = mode;
    this.title = make("h3", { class: "rahf-title", dir: "auto" });
    this.stage = new Stage();
    this.words = mode === "one" ? new Words() : new Words("");
    this.bars = {};
    this.reasons = make("ul", { class: "rahf-reasons", "aria-busy": "false" });
    const scores = make("div", { class: "rahf-scores", role: "group", "aria-label": `Scores. ${SCALE}` });
    for (const [name, meaning] of Object.entries(SCORES)) scores.append(this.bar(name, meaning));
    if (mode === "one") scores.append(make("p", { class: "rahf-scale" }, SCALE));
    const said = make("div", { class: "rahf-said" }, scores, this.words.element, this.reasons);
    this.element = make("li", { class: "rahf-item" }, this.title, this.stage.element, said);
    this.title.hidden = mode === "one";
  }

  bar(name, meaning) {
    const fill = make("span", { class: "rahf-fill" });
    const meter = make("span", { class: "rahf-meter", role: "meter", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 1, "aria-valuenow": 0, "aria-valuetext": "not known yet" }, fill);
    const range = make("span", { class: "rahf-range", hidden: true });
    meter.append(range);
    const number = make("span", {}, "–");
    const unsure = make("small", { class: "rahf-unsure", hidden: true }, "unsure");
    const value = make("span", { class: "rahf-value" }, number, unsure);
    this.bars[name] = { fill, meter, range, number, unsure };
    const label = make("span", { class: "rahf-label", title: meaning }, name);
    if (this.mode === "one") label.append(make("small", {}, meaning));
    return make("div", { class: "rahf-score" }, label, meter, value);
  }

  /** Shows what the server said; `loaded` is what Stage.fetch gave for it. */
  put(data, loaded, settings) {
    if (loaded) this.stage.put(loaded, settings);
    this.stage.image.alt = data.title || "The picture";
    this.title.replaceChildren(...this.heading(data));
    this.element.classList.toggle("rahf-best", data.place === 1);
    for (const name of Object.keys(this.bars)) this.score(name, data);
    if (loaded) this.words.show(data.segments, settings.words, data.unjudged);
    this.reasons.replaceChildren(...data.reasons.map((reason) => make("li", { dir: "auto" }, reason)));
  }

  /** One bar, with the interval where there is one, and in words where the model says that it does not know. */
  score(name, { scores, intervals = {}, unsure = [] }) {
    const { fill, meter, range, number, unsure: doubt } = this.bars[name];
    const value = scores[name].toFixed(2);
    const ends = intervals[name] ?? null;
    const doubtful = unsure.includes(name);
    const between = ends ? `90% interval ${ends[0].toFixed(2)} to ${ends[1].toFixed(2)}` : "";
    fill.style.width = `${100 * scores[name]}%`;
    range.hidden = !ends;
    if (ends) {
      range.style.left = `${100 * ends[0]}%`;
      range.style.width = `${100 * (ends[1] - ends[0])}%`;
    }
    meter.title = between;
    meter.setAttribute("aria-valuenow", value);
    meter.setAttribute("aria-valuetext", [value, between, doubtful ? "unsure" : ""].filter(Boolean).join(", "));
    number.textContent = value;
    doubt.hidden = !doubtful;
  }

  heading(data) {
    if (data.place === null || data.place === undefined) return [data.title];
    const value = make("span", { class: "rahf-total" }, data.value.toFixed(2));
    return [make("b", {}, `${data.place}. `), make("bdi", {}, data.title), " ", value];
  }

  apply(settings) {
    this.stage.apply(settings);
    this.words.mark(settings.words);
  }
}

/** How long the sliders rest before new reasons are asked for, in milliseconds. */
const REST = 150;

/**
 * The whole component, in an element that holds the markup of view.html. mode: "one" or "many"; words: the probability
 * from which words are marked at first. `settle` is called with {threshold, words} where the reasons on the page were
 * given for other positions of the sliders: they are the server's, which then shows the page again.
 */
export class FeedbackView {
  constructor(element, { mode = "one", words = 0.5 } = {}, settle = () => {}) {
    this.root = element.querySelector(".rahf-view");
    this.root.dataset.mode = mode;
    this.mode = mode;
    this.list = this.root.querySelector(".rahf-items");
    this.status = this.root.querySelector(".rahf-status");
    this.items = new Map();
    this.generation = 0;
    this.settle = settle;
    this.told = null;
    // Views may share a page, and of all radio buttons of one name only one is checked: names first, then the choice.
    const group = `rahf-map-${Math.random().toString(36).slice(2)}`;
    for (const radio of this.root.querySelectorAll("input[type=radio]")) radio.name = group;
    this.root.querySelector("input[type=radio][value=both]").checked = true;
    this.usually(words);
    this.root.querySelector(".rahf-tools").addEventListener("input", () => this.apply());
    this.legend();
    this.clear();
  }

  get settings() {
    const read = (name) => Number(this.root.querySelector(`input[name=${name}]`).value);
    const map = this.root.querySelector("input[type=radio]:checked").value;
    // The slider knows hundredths; where it stands at first it means the weights' own line to the last digit.
    const words = read("words") === this.notch ? this.usual : read("words");
    return { map, opacity: read("opacity"), threshold: read("threshold"), words };
  }

  /** From which probability on words are marked unless the slider is moved. */
  usually(words) {
    if (words === this.usual) return;
    const slider = this.root.querySelector("input[name=words]");
    slider.value = words;
    this.usual = words;
    this.notch = Number(slider.value);
  }

  legend() {
    const place = this.root.querySelector(".rahf-legend");
    this.colours = {};
    for (const name of Object.keys(STOPS)) {
      this.colours[name] = make("span", { class: "rahf-colours", role: "img", "aria-label": `Colours of ${name}, from 0 on the left to 1 on the right` });
      place.append(make("span", { class: "rahf-name" }, `${TITLES[name]}: ${MEANINGS[name]}`), make("span", {}, "0"), this.colours[name], make("span", {}, "1"));
    }
    const kinds = KINDS.map(([name, looks]) => make("span", { class: looks }, name));
    place.append(make("p", { class: "rahf-kinds" }, "Words: ", kinds[0], ", ", kinds[1], ", ", kinds[2]));
  }

  apply() {
    const settings = this.settings;
    const shown = { opacity: `${Math.round(100 * settings.opacity)}%`, threshold: settings.threshold.toFixed(2), words: settings.words.toFixed(2) };
    for (const [name, text] of Object.entries(shown)) {
      this.root.querySelector(`input[name=${name}]`).parentElement.querySelector("output").textContent = text;
    }
    for (const [name, bar] of Object.entries(this.colours)) {
      bar.style.backgroundImage = gradient(name, settings.threshold);
      bar.style.opacity = [name, "both"].includes(settings.map) ? 1 : 0.25;
    }
    for (const item of this.items.values()) item.apply(settings);
    this.agree(settings);
  }

  /** Asks for reasons that fit the sliders; until they arrive the old ones are dimmed. */
  agree({ threshold, words }) {
    const fits = !this.told || (this.told.threshold === threshold && this.told.words === words);
    for (const item of this.items.values()) item.reasons.setAttribute("aria-busy", String(!fits));
    clearTimeout(this.resting);
    if (!fits) this.resting = setTimeout(() => this.settle({ threshold, words }), REST);
  }

  say(text) {
    this.status.textContent = text;
  }

  clear() {
    this.generation++;
    this.items.clear();
    this.told = null;
    this.root.classList.remove("rahf-ready");
    this.list.replaceChildren(...(this.mode === "one" ? [new Item("one").element] : []));
    this.say("");
    this.apply();
  }

  /**
   * page: {items: [{key, title, picture, maps, scores, intervals, unsure, segments, unjudged, reasons, place, value}],
   * threshold, words, usual}, as in PageData; a later call wins.
   */
  async load(page) {
    const generation = ++this.generation;
    const fresh = page.items.filter((data) => !this.items.has(data.key));
    try {
      const loaded = await Promise.all(fresh.map((data) => Stage.fetch(data)));
      if (generation !== this.generation) return false;
      this.usually(page.usual);
      this.told = { threshold: page.threshold, words: page.words };
      this.show(page.items, new Map(fresh.map((data, i) => [data.key, loaded[i]])));
      return true;
    } catch (error) {
      if (generation === this.generation) this.say(`The feedback could not be shown. ${error.message}`);
      return false;
    }
  }

  show(datas, loaded) {
    const items = new Map(datas.map((data) => [data.key, this.items.get(data.key) ?? new Item(this.mode)]));
    for (const data of datas) items.get(data.key).put(data, loaded.get(data.key), this.settings);
    this.items = items;
    this.list.replaceChildren(...[...items.values()].map((item) => item.element));
    this.root.classList.add("rahf-ready");
    this.apply();
    this.say(datas.length > 1 ? `${datas.length} pictures, best first: ${datas[0].title}.` : "");
  }
}
