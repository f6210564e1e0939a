package claims

// notYet are the promises that no test names so far. It only becomes shorter: TestEveryDocumentedPromiseHasATest fails where one of them is
// held, or has vanished, and for a new one that is not held.
var notYet = map[string]bool{}
