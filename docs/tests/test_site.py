"""The built site in a browser: links, requests, console, widths, light and dark, search.

``make docs`` builds it, ``make docs-test`` runs this. It is no part of the suite.
"""

import functools
import json
import re
import shutil
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import urlopen

import pytest

SITE = Path(__file__).resolve().parents[2] / "build" / "docs" / "html"
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")
# A target of its own does not pass by skipping what it is for.
if not (SITE / "index.html").exists():
    pytest.exit("the site is not built: make docs", returncode=1)
if BROWSER is None or DRIVER is None:
    pytest.exit("there is no browser: apt-get install chromium chromium-driver", returncode=1)

from selenium import webdriver  # noqa: E402

WIDTHS = (400, 1600)
SCHEMES = ("light", "dark")


class QuietHandler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def site():
    """Serve the site on the loopback interface; return its address."""
    handler = functools.partial(QuietHandler, directory=SITE)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Page(HTMLParser):
    """What a page links to, what it loads, and what can be linked to in it."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors.add(attrs.get("id"))
        if tag == "a":
            self.anchors.add(attrs.get("name"))
            self.links.append(attrs.get("href"))
        elif tag == "link" and "stylesheet" in attrs.get("rel", ""):
            self.loads.append(attrs.get("href"))
        elif tag in ("img", "script", "source", "iframe", "object"):
            self.loads.append(attrs.get("src") or attrs.get("data"))
        self.links = [link for link in self.links if link]
        self.loads = [load for load in self.loads if load]


@pytest.fixture(scope="module")
def crawled(site):
    """Follow all links from the first page; return the pages, other files, and what is missing."""
    pages, others, missing = {}, set(), []
    left = [("", site)]
    while left:
        source, address = left.pop()
        if address in pages or address in others:
            continue
        try:
            with urlopen(address) as answer:
                kind, content = answer.headers.get_content_type(), answer.read()
        except HTTPError as error:
            missing.append(f"{source}: {address} is {error.code}")
            others.add(address)
            continue
        if kind != "text/html":
            others.add(address)
            continue
        page = pages[address] = Page(content.decode())
        for link in page.links + page.loads:
            target = urldefrag(urljoin(address, link)).url
            if target.startswith(site):
                left.append((address, target))
    return pages, others, missing


@pytest.fixture(scope="module")
def names(site):
    """Name each page on the disk; templates of the theme lie beside them."""
    pages = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
    return [page for page in pages if not page.startswith("_static/")]


def test_no_link_within_the_site_is_broken(site, crawled):
    pages, others, missing = crawled
    assert len(pages) > 60
    assert len(others) > 20
    for address, page in pages.items():
        for link in page.links:
            target, anchor = urldefrag(urljoin(address, link))
            anchor = unquote(anchor)
            if target in pages and anchor and anchor not in pages[target].anchors:
                missing.append(f"{address}: {link} has no such place")
    assert not missing, "\n".join(missing)


def test_every_page_can_be_reached_from_the_first(site, crawled, names):
    reached = {urlsplit(address).path.lstrip("/") or "index.html" for address in crawled[0]}
    of_the_builder = {name for name in names if name.endswith("sg_execution_times.html")}
    of_the_builder |= {"genindex.html", "search.html"}  # the search has a button
    assert set(names) - reached <= of_the_builder


def test_nothing_is_loaded_from_elsewhere(site, crawled):
    for address, page in crawled[0].items():
        for load in page.loads:
            there = urljoin(address, load)
            assert there.startswith((site, "data:")), (address, load)


def test_every_public_name_has_its_place(site):
    from sphinx.util.inventory import InventoryFile

    import sktransfer

    with (SITE / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, site, urljoin)
    objects = {name for kind in inventory if kind.startswith("py:") for name in inventory[kind]}
    for name in sktransfer.__all__:
        if not hasattr(getattr(sktransfer, name), "__path__"):
            where = getattr(sktransfer, name).__module__
            assert any(entry.endswith(f".{name}") for entry in objects), (name, where)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.execute_cdp_cmd("Network.enable", {})
    yield driver
    driver.quit()


def resize(browser, width, height=900):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )


def prefer(browser, scheme):
    features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": name, "value": value} for name, value in features.items()]},
    )


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def wait_for(browser, selector):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20).until(lambda browser: find(browser, selector))


def wait_until(browser, script):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20).until(lambda browser: browser.execute_script(script))


# Tables, code and pictures may be wider than their place where they scroll in a box of their own;
# the theme lets the whole article scroll, which is no such box.
TOO_WIDE = """
const article = document.querySelector('article') || document.body;
const boxed = (element) => {
  for (let box = element; box && box !== article && box !== document.body; box = box.parentElement)
    if (['auto', 'scroll', 'hidden', 'clip'].includes(getComputedStyle(box).overflowX)) return true;
  return false;
};
const edge = Math.min(innerWidth, article.getBoundingClientRect().right);
return [...article.querySelectorAll('*')]
  .filter((element) => element.getBoundingClientRect().right > edge + 1 && !boxed(element))
  .slice(-2).map((element) => element.outerHTML.slice(0, 120));  // the innermost ones tell most
"""
NOT_LOADED = """
for (const image of document.images) image.loading = 'eager';
return Promise.all([...document.images].map((image) =>
  image.complete ? 0 : new Promise((done) => { image.onload = image.onerror = done; })))
  .then(() => [...document.images].filter((image) => !image.naturalWidth).map((i) => i.src));
"""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_page_has_a_clean_console_fits_both_widths_and_asks_for_nothing_outside(
    browser, site, names, scheme
):
    wrong = []
    asked = set()
    prefer(browser, scheme)
    for log in ("performance", "browser"):  # of the tests before
        browser.get_log(log)
    for name in names:
        resize(browser, WIDTHS[0])
        browser.get(site + name)
        for width in WIDTHS:
            resize(browser, width)
            total = browser.execute_script("return document.documentElement.scrollWidth")
            if total > width:
                wrong.append(f"{name}: {total} pixels wide at {width}")
            wrong += [f"{name} at {width}: {tag}" for tag in browser.execute_script(TOO_WIDE)]
        wrong += [f"{name}: no picture {src}" for src in browser.execute_script(NOT_LOADED)]
        if is_dark(browser) != (scheme == "dark"):
            wrong.append(f"{name}: its ground is not {scheme}")
        wrong += [f"{name}: {message}" for message in complaints(browser)]
        asked |= requests(browser)
    assert not wrong, "\n".join(wrong)
    assert len(asked) > len(names)
    outside = {url for url in asked if not url.startswith((site, "data:", "blob:"))}
    assert not outside


# scikit-learn 1.9's own script says this of its diagram of any fitted ColumnTransformer
OF_SCIKIT_LEARN = "Expected copy-paste icon is missing from the DOM structure"


def complaints(browser):
    """Return what the console holds since the last call, but notes; the theme writes some."""
    entries = [e for e in browser.get_log("browser") if e["level"] not in ("INFO", "DEBUG")]
    return [e["message"] for e in entries if OF_SCIKIT_LEARN not in e["message"]]


def is_dark(browser):
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    return sum(int(value) for value in re.findall(r"\d+", colour)[:3]) < 180


def requests(browser):
    """Return the addresses that were asked for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }


def test_the_search_finds_a_parameter(browser, site):
    resize(browser, 1600)
    browser.get(f"{site}search.html?q=freeze_depth")
    wait_for(browser, "#search-results ul.search li")
    wait_until(
        browser, "return /found/.test(document.querySelector('.search-summary').textContent)"
    )
    found = [link.get_attribute("href") for link in find(browser, "#search-results li a")]
    print(*found, sep="\n")
    assert any("fine_tuning.html" in link for link in found)
    assert any("FineTunedClassifier" in link for link in found)
    browser.get(found[0])
    assert find(browser, "h1")
    assert not complaints(browser)


def test_the_search_opens_by_key_on_each_width(browser, site):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    for width in WIDTHS:
        resize(browser, width)
        browser.get(f"{site}user_guide.html")
        keys = ActionChains(browser)
        keys.key_down(Keys.CONTROL).send_keys("k").key_up(Keys.CONTROL).perform()
        field = wait_for(
            browser, "dialog[open] input[type=search], .search-button__wrapper.show input"
        )
        field[-1].send_keys("linear probe", Keys.ENTER)
        wait_for(browser, "#search-results ul.search li")
        assert any("glossary" in link.get_attribute("href") for link in find(browser, "li a"))


def test_the_scheme_can_be_chosen(browser, site):
    prefer(browser, "light")
    resize(browser, 1600)
    browser.get(f"{site}index.html")
    for scheme in ("dark", "light"):
        find(browser, ".theme-switch-button")[0].click()
        (choice,) = [
            button
            for button in find(browser, f'.theme-change-button[data-mode="{scheme}"]')
            if button.is_displayed()
        ]
        choice.click()
        assert is_dark(browser) == (scheme == "dark")
        browser.refresh()
        assert is_dark(browser) == (scheme == "dark")  # it is remembered
    browser.execute_script("localStorage.clear()")


def test_code_is_copied_without_prompts(browser, site):
    from selenium.webdriver import ActionChains

    resize(browser, 1600)
    browser.get(f"{site}backbones.html")
    wait_for(browser, "button.copybtn")
    browser.execute_script(
        "window.copied = []; document.addEventListener('copy', () =>"
        " window.copied.push(document.activeElement.value || getSelection().toString()))"
    )
    button = find(browser, "button.copybtn")[0]
    ActionChains(browser).move_to_element(button).click(button).perform()
    (text,) = browser.execute_script("return window.copied")
    assert text.startswith("from sktransfer import backbone_info")
    assert ">>>" not in text


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_stands_out_from_its_ground(browser, site, scheme):
    prefer(browser, scheme)
    browser.get(f"{site}fine_tuning.html")
    for selector in ("article p", "article td", "article a", "article code"):
        ratio = browser.execute_script(CONTRAST, selector)
        assert ratio >= 4.5, (selector, ratio)


# WCAG 2.2: the relative luminance of a text and of the first opaque ground behind it
CONTRAST = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (value) =>
  (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
let box = document.querySelector(arguments[0]);
const text = light(parse(getComputedStyle(box).color));
let ground = [0, 0, 0, 0];
for (; box; box = box.parentElement) {
  ground = parse(getComputedStyle(box).backgroundColor);
  if (ground.length === 3 || ground[3] === 1) break;
}
const back = light(ground);
return (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
"""
