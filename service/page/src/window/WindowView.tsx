export function WindowView() {
  return <p />;
}
