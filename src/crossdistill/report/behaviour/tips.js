// Tooltips: of whatever carries data-tip, and of the labelled marks of a chart, nearest to the pointer or by the arrow keys.
// Shown on hover, focus and tap; the pointer may go over them; Escape sends them away.
(() => {
  const REACH = 32; // px from a mark at which it still answers
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.body.append(tip);
  let owner = null; // what the tip describes
  let leaving = 0;
  let marked = null;

  const hide = () => {
    clearTimeout(leaving);
    tip.hidden = true;
    owner?.removeAttribute("aria-describedby");
    owner = null;
    marked?.classList.remove("pointed-at");
    marked = null;
  };
  const hideSoon = () => {
    clearTimeout(leaving);
    leaving = setTimeout(hide, 150); // time enough to reach the tip
  };

  const show = (element, text, box) => {
    clearTimeout(leaving);
    if (owner !== element) hide();
    owner = element;
    tip.textContent = text;
    tip.hidden = false;
    element.setAttribute("aria-describedby", tip.id);
    const { width, height } = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - width / 2), document.documentElement.clientWidth - width - 8);
    const above = box.top - height - 6;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${above >= 8 ? above : box.bottom + 6}px`;
  };

  const showTip = (element) => show(element, element.dataset.tip, element.getBoundingClientRect());
  const point = (chart, mark) => {
    show(chart, mark.getAttribute("aria-label"), mark.getBoundingClientRect());
    marked?.classList.remove("pointed-at");
    marked = mark;
    mark.classList.add("pointed-at");
  };

  document.addEventListener("pointerover", (event) => {
    if (tip.contains(event.target)) return clearTimeout(leaving);
    const element = event.target.closest?.("[data-tip]");
    if (element) showTip(element);
    else if (owner && !owner.matches(":focus-visible") && !event.target.closest?.("svg.chart")) hideSoon();
  });
  document.addEventListener("pointerout", (event) => {
    if (!event.relatedTarget && event.pointerType !== "touch") hideSoon(); // a finger that was lifted has left nothing
  });
  document.addEventListener("focusin", (event) => {
    const element = event.target.closest("[data-tip]");
    if (element && event.target.matches(":focus-visible")) showTip(element);
  });
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  document.addEventListener("pointerdown", (event) => {
    if (tip.contains(event.target) || event.target.closest?.("svg.chart")) return;
    const element = event.target.closest?.("[data-tip]");
    if (element && event.pointerType === "touch") showTip(element);
    else hide();
  });
  addEventListener("scroll", () => owner && hide(), { passive: true, capture: true });

  const middle = (mark) => {
    const box = mark.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };
  const nearest = (marks, x, y) => {
    let found = null;
    let least = REACH;
    for (const mark of marks) {
      const [left, top] = middle(mark);
      const distance = Math.hypot(left - x, top - y);
      if (distance < least) [found, least] = [mark, distance];
    }
    return found;
  };

  for (const chart of document.querySelectorAll("svg.chart")) {
    const marks = [...chart.querySelectorAll("[aria-label]")].filter((mark) => mark.matches("path, rect, circle, line, text"));
    if (!marks.length) continue;
    for (const mark of marks) mark.setAttribute("role", "img"); // a label needs a role to hang on
    const answer = (event) => {
      const mark = nearest(marks, event.clientX, event.clientY);
      if (mark) point(chart, mark);
      else if (owner === chart) hideSoon();
    };
    chart.addEventListener("pointermove", answer);
    chart.addEventListener("pointerdown", answer);
    chart.addEventListener("pointerleave", (event) => tip.contains(event.relatedTarget) || hideSoon());
    chart.tabIndex = 0;
    chart.setAttribute("role", "application"); // else screen readers keep the arrow keys for themselves
    chart.setAttribute("aria-roledescription", "chart, arrow keys go through its marks");
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const place = owner === chart && marked ? marks.indexOf(marked) + step : step > 0 ? 0 : marks.length - 1;
      const mark = marks[(place + marks.length) % marks.length];
      point(chart, mark);
      announce(mark.getAttribute("aria-label"));
    });
  }
})();
