"""The report in a real browser, without a network: what opens, what runs, and what does not."""

import json
import shutil

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sktransfer import PretrainedFeatureTransformer
from sktransfer.inspection import ErrorReport

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: sktransfer[test]")

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None,
    reason="needs a browser: apt-get install chromium chromium-driver",
)
WIDTHS = (400, 1600)


@pytest.fixture(scope="module")
def report(hostile, store):
    """Return a report on images and classes of hostile names."""
    X, y = hostile
    network = PretrainedFeatureTransformer("mini", image_size=32, feature_cache=store)
    pipeline = make_pipeline(network, LogisticRegression(C=0.01, max_iter=1000))
    return ErrorReport.from_cv(
        pipeline,
        X,
        y,
        cv=2,
        map_method="pca",
        activation_maps=2,
        title="</title><script>window.ran=1</script>",
    )


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    """Return the path of the saved report."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.save(path)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
    )
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, page):
    for log in ("performance", "browser"):  # of the test before
        browser.get_log(log)
    resize(browser, 1200)
    prefer(browser, "light")
    browser.get(page.as_uri())
    return browser


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


def press(browser, key):
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(key).perform()


def is_loaded(browser, selector):
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].every((i) => i.naturalWidth > 0)",
        selector,
    )


def test_it_asks_for_nothing_but_itself(opened, page):
    cell = find(opened, ".cell")[0]
    cell.click()
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert page.as_uri() in asked  # so the log does hold requests
    others = {url for url in asked if not url.startswith("data:")} - {page.as_uri()}
    assert not others
    failed = [event for event in events if event["method"] == "Network.loadingFailed"]
    assert not failed


def test_hostile_names_do_not_run_and_nothing_is_in_the_console(opened):
    opened.execute_script(
        "for (const cell of document.querySelectorAll('.cell')) {"
        "  cell.click(); document.getElementById('sheet-close').click(); }"
        "document.getElementById('map-view').dispatchEvent("
        "  new KeyboardEvent('keydown', {key: 'ArrowRight'}))"
    )
    assert find(opened, "#tip .name")  # names of files are on the page by now
    assert find(opened, "#sheet-images .name")
    assert opened.execute_script("return window.ran") is None
    assert opened.get_log("browser") == []
    assert "<script>window.ran=1</script>" in opened.title
    text = find(opened, "tbody th")[0].text
    assert any(mark in text for mark in ("</script>", "onmouseover", "javascript:"))


def test_even_a_script_that_got_in_would_not_run(opened):
    opened.execute_script(
        "const made = document.createElement('script');"
        "made.textContent = 'window.ran = 1'; document.body.append(made);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=window.ran=1>')"
    )
    assert opened.execute_script("return window.ran") is None
    refused = [entry["message"] for entry in opened.get_log("browser")]
    assert any("Content Security Policy" in message for message in refused)


def test_cells_open_their_images_by_click_and_by_key(opened):
    from selenium.webdriver.common.keys import Keys

    sheet = find(opened, "#sheet")[0]
    cells = find(opened, ".cell")
    for use, cell in zip((None, Keys.ENTER, Keys.SPACE), cells, strict=False):
        assert not sheet.is_displayed()
        if use is None:
            cell.click()
        else:
            opened.execute_script("arguments[0].focus()", cell)
            press(opened, use)
        assert sheet.is_displayed()
        assert len(find(opened, "#sheet-images li")) == int(cell.get_attribute("data-n"))
        assert is_loaded(opened, "#sheet-images img")
        assert find(opened, "#sheet-close")[0] == opened.switch_to.active_element
        press(opened, Keys.ESCAPE)
        assert opened.switch_to.active_element == cell  # and the focus is back


def test_pictures_of_the_lists_are_there_without_a_click(opened):
    opened.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    assert len(find(opened, "#losses li")) >= 3
    assert len(find(opened, "#labels li")) >= 3
    assert is_loaded(opened, "main img")


def test_the_map_shows_the_picture_of_a_mark_that_is_pointed_at(opened):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    tip = find(opened, "#tip")[0]
    marks = find(opened, ".mark")
    assert len(marks) == 60
    data = json.loads(find(opened, "#data")[0].get_attribute("textContent"))
    view = find(opened, "#map-view")[0]
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", view)
    assert not tip.is_displayed()
    for mark in (marks[0], marks[-1]):
        ActionChains(opened, duration=0).move_to_element(mark).perform()
        assert tip.is_displayed()
        image = data["images"][int(mark.get_attribute("data-i"))]
        # of marks that lie on one another the other one may be shown
        shown = find(opened, "#tip img")[0].get_attribute("src")
        assert shown in {other[1] for other in data["images"]}
        assert is_loaded(opened, "#tip img")
        assert data["classes"][image[4]] in tip.text or shown != image[1]
    assert find(opened, "#tip img")[0].get_attribute("src") == image[1]

    opened.execute_script("arguments[0].focus()", view)
    press(opened, Keys.ARROW_RIGHT)
    first = find(opened, "#tip img")[0].get_attribute("src")
    press(opened, Keys.ARROW_RIGHT)
    assert find(opened, "#tip img")[0].get_attribute("src") != first
    press(opened, Keys.ENTER)
    assert len(find(opened, "#sheet-images li")) == 12


def test_the_legend_dims_other_classes_and_what_is_right(opened):
    chips = find(opened, ".chip[data-class]")
    chips[0].click()
    k = chips[0].get_attribute("data-class")
    left = opened.execute_script(
        "return [...document.querySelectorAll('.mark:not(.dim)')].map((mark) => mark.dataset.class)"
    )
    assert set(left) == {k}
    chips[0].click()
    find(opened, "#only-wrong")[0].click()
    assert len(find(opened, ".mark:not(.dim)")) == len(find(opened, ".mark.wrong")) == 3


def test_where_the_network_looked_can_be_hidden(opened):
    overlays = find(opened, ".overlay")
    assert len(overlays) == 2
    assert overlays[0].is_displayed()
    assert overlays[0].size["width"] > 20
    find(opened, "#overlays")[0].click()
    assert not overlays[0].is_displayed()


def test_there_is_nothing_to_scroll_sideways(opened):
    for width in WIDTHS:
        resize(opened, width)
        assert opened.execute_script("return window.innerWidth") == width
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width
        find(opened, ".cell")[0].click()
        sheet = find(opened, "#sheet")[0]
        assert sheet.is_displayed()
        assert sheet.size["width"] <= width
        assert opened.execute_script("return arguments[0].scrollWidth", sheet) <= width
        find(opened, "#sheet-close")[0].click()


def test_in_the_frame_of_a_notebook_it_works_as_well(browser, report, tmp_path):
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><title>notebook</title>{report._repr_html_()}")
    resize(browser, 1200)
    prefer(browser, "light")
    browser.get(notebook.as_uri())
    browser.switch_to.frame(find(browser, "iframe")[0])
    cell = find(browser, ".cell")[0]
    browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", cell)
    cell.click()
    assert find(browser, "#sheet")[0].is_displayed()
    find(browser, "#sheet-close")[0].click()
    link = find(browser, '.contents a[href="#map"]')[0]
    browser.execute_script("scrollTo({top: 0, behavior: 'instant'})")
    link.click()
    assert browser.switch_to.active_element == find(browser, "#map")[0]  # and not another page
    browser.switch_to.default_content()
    assert browser.title == "notebook"
    assert browser.execute_script("return window.ran") is None


def test_text_stands_out_from_its_ground_in_light_and_in_dark(opened):
    for scheme in ("light", "dark"):
        prefer(opened, scheme)
        paper = colour_of(opened, "body", "backgroundColor")
        assert (luminance(paper) < 0.1) == (scheme == "dark")
        for selector in ("body", ".soft", ".kind", ".pair.wrong b", ".name"):
            ratio = contrast(colour_of(opened, selector, "color"), paper)
            assert ratio >= 4.5, (scheme, selector, ratio)


def colour_of(browser, selector, name):
    text = browser.execute_script(
        "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]",
        selector,
        name,
    )
    return [float(value) for value in text[text.index("(") + 1 : -1].split(",")[:3]]


def luminance(colour):
    """Return the relative luminance of WCAG 2.2."""
    share = np.array(colour) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
