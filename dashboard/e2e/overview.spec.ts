import { complaints, expect, test } from "./node";
import { EVIL_FEATURE, seed } from "./seed";

test("the numbers on the overview are those of the events sent", async ({ page, node }) => {
  const wrong = complaints(page);
  await page.goto(node.url);
  await expect(page.getByTestId("active-users")).toHaveText(seed.activeUsers);
  await expect(page.getByTestId("conversion")).toHaveText(seed.conversion);
  await expect(page.getByTestId("funnel-counts")).toHaveText(seed.funnel);
  await expect(page.getByTestId("error-rate")).toHaveText(seed.errorRate);
  const rows = page.getByRole("region", { name: "Top features" }).getByRole("listitem");
  await expect(rows).toHaveText(seed.features.map(({ name, users }) => `${name}${users}`));
  // The picture has them too: its table, row by row.
  const funnel = page.getByRole("region", { name: "Sign-up funnel" });
  await funnel.getByRole("button", { name: /^Table/ }).click();
  const cells = await funnel.getByRole("row").locator("td:nth-of-type(1)").allTextContents();
  const started = seed.events.filter((e) => e.event === "signup_started").length;
  expect(cells.reduce((sum, text) => sum + Number(text.replaceAll(",", "")), 0)).toBe(started);
  expect(wrong).toEqual([]);
});

test("a feature that is clicked filters the page, and panels that cannot be filtered by it say so", async ({
  page,
  node,
}) => {
  await page.goto(node.url);
  const features = page.getByRole("region", { name: "Top features" });
  await features.getByRole("button", { name: /^export/ }).click();
  await expect(features.getByRole("listitem")).toHaveText([
    `export${seed.features.find((f) => f.name === "export")?.users}`,
  ]);
  await expect(page.getByRole("list", { name: "Filters" })).toContainText("feature:export");
  const errors = page.getByRole("region", { name: "Error rate" });
  await expect(errors.getByText("This panel has no dimension “feature”")).toBeVisible();
  await errors.getByRole("button", { name: "Show it unfiltered" }).click();
  await expect(page.getByTestId("error-rate")).toHaveText(seed.errorRate);
  await expect(errors.getByText("Not filtered by feature:export")).toBeVisible();
  await page.goBack();
  await expect(features.getByRole("listitem")).toHaveCount(seed.features.length);
  await page.goForward();
  await expect(features.getByRole("listitem")).toHaveCount(1);
  await page.getByRole("button", { name: "Remove the filter feature:export" }).click();
  await expect(features.getByRole("listitem")).toHaveCount(seed.features.length);
});

test("a filter that nothing passes says so and can be cleared", async ({ page, node }) => {
  await page.goto(`${node.url}/?filter=${encodeURIComponent(JSON.stringify(["country_code:XX"]))}`);
  const funnel = page.getByRole("region", { name: "Sign-up funnel" });
  await expect(funnel.getByText("Nothing matches")).toBeVisible();
  await funnel.getByRole("button", { name: "Clear filters" }).click();
  await expect(page.getByTestId("funnel-counts")).toHaveText(seed.funnel);
});

test("a comparison with a period before the first event says that there is nothing to compare", async ({
  page,
  node,
}) => {
  await page.goto(node.url);
  await page.getByLabel("Compare with").selectOption("week");
  await expect(page).toHaveURL(/compare=week/);
  const funnel = page.getByRole("region", { name: "Sign-up funnel" });
  await expect(funnel.getByTestId("delta")).toHaveText("nothing to compare in the week before");
  await expect(page.getByTestId("funnel-counts")).toHaveText(seed.funnel);
});

test("a custom range is in the address in UTC and on the screen in the zone", async ({ page, node }) => {
  await page.goto(`${node.url}/?tz=Asia%2FKathmandu`);
  await page.getByRole("button", { name: "Range: Custom" }).click();
  await page.getByLabel("From").fill("2026-01-01T05:45");
  await page.getByLabel("To, not included").fill("2026-01-01T11:45");
  await page.getByRole("button", { name: "Show", exact: true }).click();
  await expect(page).toHaveURL(/from=2026-01-01T00%3A00%3A00\.000Z.*to=2026-01-01T06%3A00%3A00\.000Z/);
  await expect(page.getByRole("button", { name: /Range: Thu.*05:45 – Thu.*11:45/ })).toBeVisible();
});

test("names with HTML in them stay text", async ({ page, node }) => {
  await page.goto(node.url);
  await expect(page.getByText(EVIL_FEATURE)).toBeVisible();
  await page.goto(`${node.url}/explore?group=${encodeURIComponent('["event"]')}&picture=table`);
  await expect(page.getByText("<b>bold</b>")).toBeVisible();
  await expect(page.locator("main img, main b, main script")).toHaveCount(0);
  expect(await page.title()).toBe("Tallymesh");
});

test("a week is drawn minute by minute, soon and from a small answer; longer ranges say their step", async ({
  page,
  node,
}) => {
  const wrong = complaints(page);
  const sizes: number[] = [];
  page.on("response", async (response) => {
    if (!response.url().includes("step=1m") || !response.url().includes("range=7d")) return;
    const { responseBodySize } = await response.request().sizes();
    sizes.push(responseBodySize);
  });
  const began = Date.now();
  await page.goto(`${node.url}/?range=7d&tz=UTC`);
  const errors = page.getByRole("region", { name: "Error rate" });
  await expect(errors.locator("canvas")).toBeVisible();
  const drawnMs = Date.now() - began;
  await expect(errors.getByText("error_occurred as a share of all events, per minute")).toBeVisible();
  await expect(page.getByTestId("error-rate")).toHaveText(seed.errorRate);
  await errors.getByRole("button", { name: /^Table/ }).click();
  await expect(errors.getByText(/^The last 500 of 10,08[01] steps$/)).toBeVisible();
  await errors.getByRole("button", { name: /^Chart/ }).click();
  // How long the page is busy with a change that is pushed to it.
  const busy = page.evaluate(
    () =>
      new Promise<number>((done) => {
        let longest = 0;
        new PerformanceObserver((list) => {
          for (const task of list.getEntries()) longest = Math.max(longest, task.duration);
        }).observe({ type: "longtask" });
        setTimeout(() => done(longest), 3_000);
      }),
  );
  await node.send([seed.oneMore(`week-${Date.now()}`)]);
  const longestMs = await busy;
  console.log(`a week of minutes: ${sizes.join(", ")} bytes, drawn after ${drawnMs} ms, a change ${longestMs} ms`);
  expect(sizes.length).toBeGreaterThanOrEqual(2);
  expect(Math.max(...sizes)).toBeLessThan(2 * 1_024 * 1_024);
  await page.goto(`${node.url}/?range=8d&tz=UTC`);
  await expect(errors.getByText("per hour (per minute up to 7 days)")).toBeVisible();
  expect(wrong).toEqual([]);
});
