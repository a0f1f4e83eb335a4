"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const [POSITION, URI, WIDTH, HEIGHT, LABEL, PREDICTED, OF_LABEL, OF_PREDICTED, NAME] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
  const TINY = 40; // pixels; such pictures are drawn as squares

  // Text is set as text, never as HTML: names of files and classes are other people's.
  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function picture(image) {
    const frame = element("span", "frame");
    if (image[URI] === null) {
      frame.append(element("span", "no-picture", "no picture"));
      return frame;
    }
    const made = element("img");
    made.src = image[URI];
    made.width = image[WIDTH];
    made.height = image[HEIGHT];
    made.alt = `Image ${image[POSITION]}, labelled ${data.classes[image[LABEL]]}, predicted ${data.classes[image[PREDICTED]]}`;
    if (Math.max(image[WIDTH], image[HEIGHT]) <= TINY) made.className = "tiny";
    frame.append(made);
    return frame;
  }

  function pair(key, name, chance, kind) {
    const made = element("span", `pair ${kind}`);
    made.append(element("span", "k", key), " ", element("b", "", name), " ", element("span", "p", chance));
    return made;
  }

  function parts(image) {
    const kind = image[LABEL] === image[PREDICTED] ? "right" : "wrong";
    const name = image[NAME] ? `${image[POSITION]} · ${image[NAME]}` : `${image[POSITION]}`;
    return [
      picture(image),
      pair("label", data.classes[image[LABEL]], image[OF_LABEL], ""),
      pair("predicted", data.classes[image[PREDICTED]], image[OF_PREDICTED], kind),
      element("span", "name", name),
    ];
  }

  // The sheet of pictures. A modal dialog keeps the focus, and Escape closes it.
  const sheet = document.getElementById("sheet");
  const list = document.getElementById("sheet-images");

  function show(title, note, images) {
    document.getElementById("sheet-title").textContent = title;
    document.getElementById("sheet-note").textContent = note;
    list.replaceChildren(...images.map((image) => {
      const item = element("li");
      item.append(...parts(image));
      return item;
    }));
    sheet.showModal();
    sheet.scrollTop = 0;
  }

  document.getElementById("sheet-close").addEventListener("click", () => sheet.close());
  sheet.addEventListener("click", (event) => {
    if (event.target === sheet) sheet.close(); // beside the sheet
  });

  for (const cell of document.querySelectorAll(".cell")) {
    cell.addEventListener("click", () => {
      const label = Number(cell.dataset.label), predicted = Number(cell.dataset.predicted);
      const images = data.images.filter((image) => image[LABEL] === label && image[PREDICTED] === predicted);
      const n = Number(cell.dataset.n);
      const title = label === predicted
        ? `${data.classes[label]}, predicted right`
        : `${data.classes[label]}, predicted as ${data.classes[predicted]}`;
      const note = images.length < n ? `${images.length} of ${n} images` : n === 1 ? "1 image" : `${n} images`;
      show(title, note, images);
    });
  }

  // Links within the page: in the frame of a notebook they would lead out of it.
  for (const link of document.querySelectorAll('a[href^="#"]')) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const target = document.getElementById(link.getAttribute("href").slice(1));
      target.scrollIntoView();
      target.tabIndex = -1;
      target.focus({ preventScroll: true });
    });
  }

  const overlays = document.getElementById("overlays");
  if (overlays) {
    overlays.addEventListener("change", () => {
      document.body.classList.toggle("hide-overlays", !overlays.checked);
    });
  }

  // The map
  const view = document.getElementById("map-view");
  if (!view) return;
  const drawing = view.querySelector("svg");
  const tip = document.getElementById("tip");
  const here = document.getElementById("here");
  const marks = [...view.querySelectorAll(".mark")].map((node) => {
    const { e, f } = node.transform.baseVal.consolidate().matrix;
    return { node, x: e, y: f, image: data.images[Number(node.dataset.i)], wrong: node.classList.contains("wrong") };
  });
  // the arrow keys go from left to right
  marks.sort((a, b) => a.x - b.x || a.y - b.y);
  const REACH = 24; // units of the drawing within which a mark is pointed at
  let current = -1;

  const visible = (mark) => !mark.node.classList.contains("dim");

  function point(number) {
    current = number;
    if (number < 0) {
      tip.hidden = true;
      here.setAttribute("visibility", "hidden");
      return;
    }
    const mark = marks[number];
    here.setAttribute("cx", mark.x);
    here.setAttribute("cy", mark.y);
    here.setAttribute("visibility", "visible");
    tip.replaceChildren(...parts(mark.image));
    tip.hidden = false;
    const scale = drawing.clientWidth / drawing.viewBox.baseVal.width;
    const x = mark.x * scale, y = mark.y * scale, gap = 14;
    const right = x + gap + tip.offsetWidth <= view.clientWidth;
    tip.style.left = `${Math.max(0, right ? x + gap : x - gap - tip.offsetWidth)}px`;
    tip.style.top = `${Math.max(0, Math.min(y - tip.offsetHeight / 2, view.clientHeight - tip.offsetHeight))}px`;
  }

  function nearest(x, y, n) {
    return marks
      .map((mark, number) => ({ number, distance: Math.hypot(mark.x - x, mark.y - y) }))
      .filter(({ number }) => visible(marks[number]))
      .sort((a, b) => a.distance - b.distance)
      .slice(0, n);
  }

  function at(event) {
    const box = drawing.getBoundingClientRect();
    const scale = drawing.viewBox.baseVal.width / box.width;
    const [found] = nearest((event.clientX - box.left) * scale, (event.clientY - box.top) * scale, 1);
    return found && found.distance <= Math.max(REACH, 12 * scale) ? found.number : -1;
  }

  function open(number) {
    const mark = marks[number];
    const images = nearest(mark.x, mark.y, 12).map((found) => marks[found.number].image);
    show("An image and its nearest on the map", "The first is the one that was chosen.", images);
  }

  view.addEventListener("pointermove", (event) => point(at(event)));
  view.addEventListener("pointerleave", () => point(-1));
  view.addEventListener("blur", () => point(-1));
  view.addEventListener("click", (event) => {
    const number = at(event);
    if (number >= 0) open(number);
  });
  view.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      let next = current < 0 && step < 0 ? 0 : current;
      for (let tried = 0; tried < marks.length; tried += 1) {
        next = (next + step + marks.length) % marks.length;
        if (visible(marks[next])) return point(next);
      }
    } else if (event.key === "Enter" && current >= 0) {
      open(current);
    } else if (event.key === "Escape") {
      point(-1);
    }
  });

  // The legend dims all classes but those that are pressed
  const chips = [...document.querySelectorAll(".chip[data-class]")];
  const onlyWrong = document.getElementById("only-wrong");

  function filter() {
    const chosen = new Set(chips.filter((chip) => chip.getAttribute("aria-pressed") === "true").map((chip) => chip.dataset.class));
    const wrong = onlyWrong.getAttribute("aria-pressed") === "true";
    for (const mark of marks) {
      const kept = (!chosen.size || chosen.has(mark.node.dataset.class)) && (!wrong || mark.wrong);
      mark.node.classList.toggle("dim", !kept);
    }
  }

  for (const chip of [...chips, onlyWrong]) {
    chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
      filter();
    });
  }
})();
