// "Copy as Markdown, LaTeX, CSV" below every table: the rows and columns that are shown, with the reasons behind them.
(() => {
  const HIDDEN = ".filtered-out, .searched-out";
  const INVISIBLE = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g; // direction marks: for the eye, not for a file
  const tidy = (text) => text.replace(INVISIBLE, "").replace(/\s+/g, " ").trim();

  // A cell: its text, what stands beside it (a second line, words for those who do not see), and the reason that its footnote stands for.
  const read = (cell, notes) => {
    const rest = cell.cloneNode(true);
    for (const extra of rest.querySelectorAll("svg, .uncopied")) extra.remove();
    const mark = Number(rest.querySelector("sup")?.textContent) || null;
    for (const extra of rest.querySelectorAll("sup")) extra.remove();
    const beside = [...rest.querySelectorAll("small, .aloud")];
    for (const extra of beside) extra.remove();
    const small = beside.map((part) => tidy(part.textContent).replace(/^, /, "")).filter(Boolean).join(", ");
    const text = tidy(rest.textContent);
    return { text: text || small, small: text && small, mark, reason: notes[mark - 1] ?? "" };
  };

  const shown = (row, notes) =>
    [...row.cells]
      .filter((cell) => !cell.matches(HIDDEN))
      .flatMap((cell) => [read(cell, notes), ...Array(cell.colSpan - 1).fill({ text: "", small: "", mark: null, reason: "" })]);

  const contents = (table) => {
    const notes = [...(table.closest(".table")?.querySelectorAll(".footnotes > li") ?? [])].map((note) => tidy(note.textContent));
    const head = shown(table.tHead.rows[table.tHead.rows.length - 1], notes);
    const rows = [...table.tBodies].flatMap((body) => [...body.rows]).filter((row) => !row.matches(HIDDEN));
    return { caption: tidy(table.caption?.textContent ?? ""), head, rows: rows.map((row) => shown(row, notes)), notes };
  };

  // Of the reasons only those that a shown row refers to; they keep their numbers.
  const used = ({ head, rows, notes }) => {
    const marks = new Set([head, ...rows].flat().map((cell) => cell.mark));
    return notes.map((text, place) => ({ mark: place + 1, text })).filter(({ mark }) => marks.has(mark));
  };

  const whole = (cell) => (cell.small ? `${cell.text} (${cell.small})`.trim() : cell.text);

  const inMarkdown = (text) => text.replace(/[\\`*_[\]<>|~#$]/g, "\\$&").replace(/&/g, "&amp;");

  const markdown = (table) => {
    const line = (cells) => `| ${cells.join(" | ")} |`;
    const cell = (found) => inMarkdown(whole(found)) + (found.mark ? `[^${found.mark}]` : "");
    return [
      line(table.head.map(cell)),
      line(table.head.map((_, place) => (place ? "---:" : "---"))),
      ...table.rows.map((row) => line(row.map(cell))),
      ...used(table).flatMap(({ mark, text }) => ["", `[^${mark}]: ${inMarkdown(text)}`]),
    ].join("\n");
  };

  const LATEX = {
    "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "\u2212": "$-$", "\u2192": "$\\rightarrow$",
    "<": "$<$", ">": "$>$", "|": "$|$", "\u00b1": "$\\pm$", "\u00d7": "$\\times$", "\u2264": "$\\leq$", "\u2265": "$\\geq$",
  };
  const inLatex = (text) =>
    text.replace(/[\\~^\u2212\u2192<>|\u00b1\u00d7\u2264\u2265]|[&%$#_{}]/g, (found) => LATEX[found] ?? `\\${found}`);

  const latex = (table) => {
    const cell = (found) => inLatex(whole(found)) + (found.mark ? `\\textsuperscript{${found.mark}}` : "");
    // A row that begins with a bracket would be taken for the length behind \\.
    const line = (cells) => `${cells.map(cell).join(" & ").replace(/^\[/, "{[}")} \\\\`;
    return [
      `% ${table.caption.replace(/[\r\n]/g, " ")}; needs \\usepackage{booktabs}`,
      `\\begin{tabular}{${table.head.map((_, place) => (place ? "r" : "l")).join("")}}`,
      "\\toprule",
      line(table.head),
      "\\midrule",
      ...table.rows.map(line),
      "\\bottomrule",
      "\\end{tabular}",
      ...used(table).map(({ mark, text }) => `\n{\\footnotesize \\textsuperscript{${mark}} ${inLatex(text)}}`),
    ].join("\n");
  };

  // A spreadsheet would run a text that begins like a formula; a signed number is none.
  const inCsv = (text) => {
    const plain = text.replaceAll("\u2212", "-");
    const safe = /^[=@]|^[+-](?![\d.])/.test(plain) ? `'${plain}` : plain;
    return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };

  // The second lines stand in a column of their own, with the reasons, so that numbers stay numbers.
  const csv = (table) => {
    const remark = (cell) => [cell.small, cell.reason].filter(Boolean).join("; ");
    const remarked = table.head.map((_, place) => table.rows.some((row) => row[place] && remark(row[place])));
    const head = table.head.flatMap((cell, place) => (remarked[place] ? [whole(cell), `${whole(cell)}: remark`] : [whole(cell)]));
    const rows = table.rows.map((row) => row.flatMap((cell, place) => (remarked[place] ? [cell.text, remark(cell)] : [cell.text])));
    return [head, ...rows].map((row) => `${row.map(inCsv).join(",")}\r\n`).join("");
  };

  const dialog = (text) => {
    const shell = document.createElement("dialog");
    shell.setAttribute("aria-label", "Copy by hand");
    const area = document.createElement("textarea");
    area.readOnly = true;
    area.rows = 12;
    area.value = text;
    const label = document.createElement("label");
    label.append("This browser does not let a page copy. The text is marked: copy it with your keyboard.", area);
    const done = document.createElement("button");
    done.append("Close");
    done.addEventListener("click", () => shell.close());
    shell.append(label, done);
    shell.addEventListener("close", () => shell.remove());
    document.body.append(shell);
    shell.showModal();
    area.select();
  };

  const copied = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = document.createElement("textarea"); // a page opened from a file may not write to the clipboard by itself
      area.value = text;
      area.className = "aloud";
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  };

  const FORMATS = { Markdown: markdown, LaTeX: latex, CSV: csv };

  for (const table of document.querySelectorAll("main table")) {
    if (!table.tHead) continue;
    const tools = document.createElement("div");
    tools.className = "tools uncopied";
    tools.setAttribute("role", "group");
    tools.setAttribute("aria-label", `Copy the table: ${tidy(table.caption?.textContent ?? "")}`);
    const hidden = document.createElement("span");
    hidden.className = "row-count";
    tools.append(hidden, "Copy as");
    for (const [name, format] of Object.entries(FORMATS)) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(name);
      button.addEventListener("click", async () => {
        const text = format(contents(table));
        if (!(await copied(text))) return dialog(text);
        button.focus({ preventScroll: true }); // the fallback took the focus away
        announce(`Copied as ${name}`);
        button.classList.add("done");
        setTimeout(() => button.classList.remove("done"), 1500);
      });
      tools.append(button);
    }
    const within = table.closest(".table") ?? table.closest(".scroll") ?? table;
    if (within.matches(".table")) within.append(tools);
    else within.after(tools);

    const count = () => {
      const rows = [...table.tBodies[0].rows];
      const left = rows.filter((row) => !row.matches(HIDDEN)).length;
      hidden.textContent = left === rows.length ? "" : `${left} of ${rows.length} rows shown`;
    };
    document.documentElement.addEventListener("filtered", count);
    count();
  }
})();
