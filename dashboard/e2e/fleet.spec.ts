import { complaints, expect, TestNode, test } from "./node";

/** A member counts as not reached once gossip has missed it for a while; on a busy machine that takes its time. */
const NOTICED_WITHIN_MS = 45_000;

test("a member of a fleet that is not reached makes the light yellow, with its name, until it is back", async ({
  page,
}) => {
  test.setTimeout(240_000);
  const nodes = await TestNode.fleet(3);
  try {
    const [asked, , away] = nodes;
    if (!asked || !away) throw new Error("three nodes");
    const wrong = complaints(page);
    const health = async () => await (await fetch(`${asked.url}/health`)).json();
    const light = page.locator("[data-light]");
    await page.goto(asked.url);
    await expect(light).toHaveAttribute("data-light", "green", { timeout: NOTICED_WITHIN_MS });
    await expect(light.locator("[data-shape]")).toHaveAttribute("data-shape", "circle");
    expect((await health()).unreached ?? []).toEqual([]);

    await away.stop();
    const reason = "n3 is not reached; all 16 shards answer";
    await expect(light).toContainText(reason, { timeout: NOTICED_WITHIN_MS });
    await expect(light).toHaveAttribute("data-light", "yellow");
    await expect(light.locator("[data-shape]")).toHaveAttribute("data-shape", "triangle");
    await expect(page.getByRole("status").filter({ hasText: "Degraded" })).toBeVisible();
    const said = await health();
    expect([said.status, said.unreached]).toEqual(["ok", ["n3"]]);
    await expect(light).toHaveAccessibleName(`Degraded: ${reason}`);
    await light.hover();
    await expect(page.getByRole("tooltip")).toContainText(reason);
    await page.mouse.move(0, 400);

    await away.start(NOTICED_WITHIN_MS);
    await expect(light).toHaveAttribute("data-light", "green", { timeout: NOTICED_WITHIN_MS });
    await expect(light).toContainText("All 16 shards of n1 answer");
    expect((await health()).unreached ?? []).toEqual([]);
    expect(wrong).toEqual([]);
  } finally {
    await Promise.all(nodes.map((node) => node.remove()));
  }
});
