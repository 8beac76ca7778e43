import { ActiveUsers } from "./ActiveUsers";
import { ErrorRate } from "./ErrorRate";
import { SignupFunnel } from "./SignupFunnel";
import { TopFeatures } from "./TopFeatures";

/** Four panels of one height, which fill the screen together; one below the other where it is narrow. */
export function Overview() {
  return (
    <div className="grid grid-cols-1 gap-4 *:h-96 lg:grid-cols-2 lg:*:h-[clamp(21rem,calc(50vh-5.25rem),36rem)]">
      <h1 className="sr-only !h-px">Overview</h1>
      <ActiveUsers />
      <SignupFunnel />
      <TopFeatures />
      <ErrorRate />
    </div>
  );
}
