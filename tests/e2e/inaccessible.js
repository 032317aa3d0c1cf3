// What stands in the way of a reader: names, references, structure, and contrast (WCAG 2.2, 1.4.3). Empty: nothing.
async () => {
  await Promise.all(
    document.getAnimations().filter((one) => one instanceof CSSTransition).map((one) => one.finished),
  );
  const found = [];
  const say = (what, element) => found.push(`${what}: ${element.id || element.outerHTML.slice(0, 100)}`);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const texts = (elements) => [...(elements ?? [])].map((element) => element?.textContent ?? "").join("");
  const referred = (element, attribute) =>
    (element.getAttribute(attribute) ?? "").split(/\s+/).filter(Boolean).map((id) => document.getElementById(id));

  const CONTROLS = "button, input, select, textarea, a[href], [role=meter], [role=region], [role=log], [role=group]";
  for (const control of all(CONTROLS)) {
    const name =
      control.getAttribute("aria-label") ||
      texts(referred(control, "aria-labelledby")) ||
      texts(control.labels) ||
      (/^(BUTTON|A)$/.test(control.tagName) ? control.textContent : "");
    if (!name.trim()) say("no name", control);
  }

  for (const attribute of ["aria-labelledby", "aria-describedby", "aria-controls", "for", "list"]) {
    for (const element of all(`[${attribute}]`)) {
      if (referred(element, attribute).includes(null)) say(`dangling ${attribute}`, element);
    }
  }
  const ids = all("[id]").map((element) => element.id);
  for (const id of ids.filter((id, index) => ids.indexOf(id) !== index)) found.push(`id twice: ${id}`);
  if (!document.documentElement.lang) found.push("no language");
  for (const once of ["h1", "main", "title"]) if (all(once).length !== 1) found.push(`not one ${once}`);
  for (const image of document.images) if (!image.hasAttribute("alt")) say("no alt", image);

  // A canvas turns any CSS colour into numbers.
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (css) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = css;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const upwards = (element) => (element ? [element, ...upwards(element.parentElement)] : []);
  const behind = (element) =>
    upwards(element)
      .map((one) => rgba(getComputedStyle(one).backgroundColor))
      .find((colour) => colour[3] === 255) ?? [255, 255, 255, 255];
  const UNREAD = ":disabled, [aria-disabled=true], .skip, .sr, noscript, option";

  for (const element of all("body *")) {
    const says = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    const seen = element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
    if (!says || !seen || element.closest(UNREAD)) continue;
    const style = getComputedStyle(element);
    const opacity = upwards(element).reduce((product, one) => product * Number(getComputedStyle(one).opacity), 1);
    const ground = behind(element);
    const text = rgba(style.color).map((value, index) => value * opacity + ground[index] * (1 - opacity));
    const [brighter, darker] = [luminance(text), luminance(ground)].sort((a, b) => b - a);
    const ratio = (brighter + 0.05) / (darker + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) say(`contrast ${ratio.toFixed(2)}`, element);
  }
  return found;
}
