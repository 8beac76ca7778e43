// What a screen reader is told: every picture has a name, a description with figures in it and a table; every list and table has a name.
import type { Locator, Page } from "@playwright/test";
import { expect, TestNode, test } from "./node";
import { seed } from "./seed";

/** What is not there at once will not come: everything is on the page when it is looked at. */
test.use({ actionTimeout: 5_000 });

const asked = (parts: Record<string, string>) => `/explore?${new URLSearchParams(parts)}`;
const BY_COUNTRY = { metric: "page_view", group: '["country_code"]' };
/** Pages, and how many pictures over time each has. */
const PAGES = {
  "/": 3,
  [asked({ metric: "page_view" })]: 1,
  [asked({ ...BY_COUNTRY, picture: "bar" })]: 1,
  [asked({ ...BY_COUNTRY, step: "1m" })]: 1,
  [asked({ ...BY_COUNTRY, picture: "breakdown" })]: 0,
  [asked({ ...BY_COUNTRY, picture: "table" })]: 0,
  "/cluster": 0,
};

async function isThere(page: Page, url: string): Promise<void> {
  await page.goto(url);
  await expect(page.getByRole("main").getByRole("heading", { level: 2 }).first()).toBeVisible();
  await expect(page.locator("main .animate-pulse")).toHaveCount(0);
}

const textOf = (locator: Locator) => locator.evaluate((element) => element.textContent ?? "");
/** What an attribute such as `aria-describedby` points at. */
const pointedAt = (locator: Locator, attribute: string) =>
  locator.evaluate((element, name) => {
    const ids = (element.getAttribute(name) ?? "").split(" ");
    return ids.map((id) => document.getElementById(id)?.textContent ?? "").join(" ");
  }, attribute);

async function isAllTold(page: Page, url: string, pictures: number): Promise<void> {
  await isThere(page, url);
  const main = page.getByRole("main");
  await expect(main.getByRole("heading", { level: 1 })).toHaveCount(1);
  for (const region of await main.locator("section").all()) {
    await expect(region).toHaveAccessibleName(/\w/);
  }
  // Pictures: none stands outside of a figure, none is read out as it is drawn.
  const drawn = main.locator("svg.recharts-surface, canvas");
  await expect(main.getByRole("figure")).toHaveCount(pictures);
  if (pictures) await expect(drawn.first()).toBeAttached();
  for (const picture of await drawn.all()) {
    expect(
      await picture.evaluate((it) => [it.closest("figure") !== null, it.closest("[aria-hidden]") !== null]),
    ).toEqual([true, true]);
  }
  for (const figure of await main.getByRole("figure").all()) {
    await expect(figure).toHaveAccessibleName(/\w+ .*\w/);
    const described = await pointedAt(figure, "aria-describedby");
    expect(described).toMatch(/^[\d,]+ steps from .* to .*: (lowest .* at .*, highest .* at .*|nothing known)/);
    const name = await pointedAt(figure, "aria-labelledby");
    const button = (word: string) => figure.getByRole("button", { name: new RegExp(`^${word} ?: .*\\w`) });
    await button("Table").click();
    const table = figure.getByRole("table", { name });
    await expect(table.getByRole("columnheader").first()).toHaveText("Time");
    expect(await table.getByRole("columnheader").count()).toBeGreaterThan(1);
    expect(await table.getByRole("rowheader").count()).toBeGreaterThan(1);
    await expect(button("Chart")).toHaveAttribute("aria-pressed", "true");
  }
  for (const list of await main.locator("ol, ul").all()) await expect(list).toHaveAccessibleName(/\w/);
  for (const table of await main.getByRole("table").all()) {
    await expect(table).toHaveAccessibleName(/\w/);
    const heads = await table.locator("thead th").all();
    expect(heads.length).toBeGreaterThan(0);
    for (const head of heads) await expect(head).toHaveRole("columnheader");
  }
  for (const button of await main.getByRole("button").all()) await expect(button).toHaveAccessibleName(/\w/);
}

for (const [path, pictures] of Object.entries(PAGES)) {
  test(`all that is shown at ${decodeURIComponent(path)} is also told`, async ({ page, node }) => {
    await isAllTold(page, node.url + path, pictures);
  });
}

test("all that is shown of refused events is also told", async ({ page }) => {
  // A node of its own: other tests count what was refused.
  const node = await TestNode.started();
  try {
    const headers = { "content-type": "application/json" };
    await fetch(`${node.url}/v1/events`, { method: "POST", headers, body: '[{"user_id":"no name"}]' });
    await isAllTold(page, `${node.url}/dead-letters`, 0);
    await expect(page.getByRole("list", { name: "Refused events, the newest first" })).toContainText("missing_field");
  } finally {
    await node.remove();
  }
});

test("the description of a chart has the figures that are drawn", async ({ page, node }) => {
  await isThere(page, `${node.url}/explore?metric=signup_started&step=1h&tz=UTC`);
  const figure = page.getByRole("main").getByRole("figure");
  await expect(figure).toHaveAccessibleName("count of signup_started per 1h");
  const byHour = new Map<number, number>();
  for (const e of seed.events.filter(({ event }) => event === "signup_started")) {
    const hour = Math.floor(Date.parse(e.timestamp) / 3_600_000);
    byHour.set(hour, (byHour.get(hour) ?? 0) + 1);
  }
  const described = await pointedAt(figure, "aria-describedby");
  expect(described).toMatch(/^2[45] steps from /);
  expect(described).toContain(`highest ${Math.max(...byHour.values())} at `);
  expect(described).toContain(", the last of which is not over yet");
});

test("the overview is read as panels with their figures, and the light with its reason", async ({ page, node }) => {
  await isThere(page, node.url);
  for (const name of ["Active users now", "Sign-up funnel", "Top features", "Error rate"]) {
    await expect(page.getByRole("region", { name })).toBeVisible();
  }
  const features = page.getByRole("list", { name: "Features by unique users, the most used first" });
  await expect(features.getByRole("listitem")).toHaveCount(seed.features.length);
  const errors = page.getByRole("region", { name: "Error rate" }).getByRole("figure");
  await expect(errors).toHaveAccessibleName(`Error rate; ${seed.errorRate} over the range`);
  expect(await pointedAt(errors, "aria-describedby")).toContain("A line marks 1 %");
  const light = page.locator("[data-light]");
  await expect(light).toHaveAccessibleName(/^(Live|Connected) ?: All 16 shards of .* answer/);
  expect(await textOf(light)).toContain("shards");
});
