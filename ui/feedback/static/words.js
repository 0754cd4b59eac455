// A prompt whose words are tinted by the probability that the picture does not show them.

import { make, percent } from "./dom.js";

const UNKNOWN = "not judged: not in the vocabulary";
const HINT = "Point at a word, or reach the words with Tab and the arrow keys.";

/** What the three kinds of words look like: name and classes. */
export const KINDS = [
  ["shown", "rahf-sample"],
  ["not shown", "rahf-sample rahf-missed rahf-sure"],
  ["not judged", "rahf-sample rahf-unjudged"],
];

export class Words {
  /** Builds its own element, `this.element`. hint: said while no word is chosen. */
  constructor(hint = HINT) {
    this.hint = hint;
    this.prompt = make("p", { class: "rahf-prompt", dir: "auto", role: "group", "aria-label": "Words of the prompt" });
    this.told = make("p", { class: "rahf-told", "aria-live": "polite" });
    this.element = make("div", { class: "rahf-words" }, this.prompt, this.told);
    this.words = [];
    this.pinned = null;
    this.prompt.addEventListener("pointerover", (event) => this.tell(this.wordAt(event.target) ?? this.pinned));
    this.prompt.addEventListener("pointerleave", () => this.tell(this.pinned));
    this.prompt.addEventListener("focusin", (event) => this.tell(this.wordAt(event.target)));
    this.prompt.addEventListener("focusout", () => this.tell(this.pinned));
    this.prompt.addEventListener("click", (event) => this.pin(this.wordAt(event.target)));
    this.prompt.addEventListener("keydown", (event) => this.key(event));
  }

  /**
   * segments: [text, probability or null], which joined are the prompt. unjudged: which of those without a probability
   * are words that the model does not know.
   */
  show(segments, threshold, unjudged = []) {
    const unknown = new Set(unjudged);
    this.words = [];
    this.pinned = null;
    this.prompt.replaceChildren();
    for (const [place, [text, probability]] of segments.entries()) {
      const judged = !unknown.has(place);
      if (judged && probability === null) {
        this.prompt.append(text);
        continue;
      }
      // Spans stay inline, so that words of both writing directions keep their order.
      const word = make("span", {
        class: judged ? "rahf-word" : "rahf-word rahf-unjudged",
        title: judged ? null : UNKNOWN,
        role: "button",
        tabindex: this.words.length ? -1 : 0,
        "aria-pressed": "false",
        style: judged ? `--chance: ${Math.round(100 * probability)}%` : null,
      });
      word.textContent = text;
      word.rahf = { text, probability: judged ? probability : null };
      this.words.push(word);
      this.prompt.append(word);
    }
    this.mark(threshold);
    this.tell(null);
  }

  /** Underlines the words from `threshold` on. */
  mark(threshold) {
    for (const word of this.words) {
      const { text, probability } = word.rahf;
      if (probability === null) {
        word.setAttribute("aria-label", `${text}: ${UNKNOWN}`);
        continue;
      }
      const missed = probability >= threshold;
      word.classList.toggle("rahf-missed", missed);
      word.setAttribute("aria-label", `${text}: ${percent(probability)} not shown${missed ? ", marked" : ""}`);
    }
  }

  wordAt(target) {
    return target.closest?.(".rahf-word") ?? null;
  }

  tell(word) {
    if (!word) {
      this.told.textContent = this.words.length ? this.hint : "";
      return;
    }
    const quoted = make("bdi");
    quoted.textContent = word.rahf.text;
    const { probability } = word.rahf;
    const said = probability === null ? UNKNOWN : `${percent(probability)} likely not shown in the picture`;
    this.told.replaceChildren("“", quoted, `”: ${said}`);
  }

  pin(word) {
    const off = !word || word === this.pinned;
    this.pinned?.setAttribute("aria-pressed", "false");
    this.pinned = off ? null : word;
    this.pinned?.setAttribute("aria-pressed", "true");
    if (word) this.reach(this.words.indexOf(word));
    this.tell(word ?? null);
  }

  /** One stop for Tab, arrows between the words. */
  reach(place) {
    const word = this.words[Math.max(0, Math.min(place, this.words.length - 1))];
    for (const other of this.words) other.tabIndex = other === word ? 0 : -1;
    word?.focus();
  }

  key(event) {
    const place = this.words.indexOf(this.wordAt(event.target));
    if (place < 0) return;
    const forward = getComputedStyle(this.prompt).direction === "rtl" ? -1 : 1;
    const steps = { ArrowRight: forward, ArrowLeft: -forward, ArrowDown: 1, ArrowUp: -1 };
    if (event.key in steps) this.reach(place + steps[event.key]);
    else if (event.key === "Home") this.reach(0);
    else if (event.key === "End") this.reach(this.words.length - 1);
    else if (event.key === "Enter" || event.key === " ") this.pin(this.words[place]);
    else if (event.key === "Escape") this.pin(null);
    else return;
    event.preventDefault();
  }
}
