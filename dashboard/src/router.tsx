import { createRootRoute, createRoute, createRouter, lazyRouteComponent } from "@tanstack/react-router";
import { questionSchema } from "./pages/explore/question";
import { Overview } from "./pages/overview/Overview";
import { viewSchema } from "./search/view";
import { NotFound, Shell } from "./shell/Shell";

const root = createRootRoute({
  component: Shell,
  notFoundComponent: NotFound,
  validateSearch: (search) => viewSchema.parse(search),
});
const overview = createRoute({ getParentRoute: () => root, path: "/", component: Overview });
const explore = createRoute({
  getParentRoute: () => root,
  path: "/explore",
  validateSearch: (search) => questionSchema.parse(search),
  component: lazyRouteComponent(() => import("./pages/explore/Explore"), "Explore"),
});
const cluster = createRoute({
  getParentRoute: () => root,
  path: "/cluster",
  component: lazyRouteComponent(() => import("./pages/cluster/Cluster"), "Cluster"),
});
const deadLetters = createRoute({
  getParentRoute: () => root,
  path: "/dead-letters",
  component: lazyRouteComponent(() => import("./pages/DeadLetters"), "DeadLetters"),
});

export const router = createRouter({
  routeTree: root.addChildren([overview, explore, cluster, deadLetters]),
  defaultPreload: "intent",
  scrollRestoration: true,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
