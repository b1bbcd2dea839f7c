package jailtest

// A use is what shows that a rule is used, or why it is there though no test uses it.
type use struct {
	by  Tests
	why string
}

// shown are the rules, by jail.Rule.String, that others than Processes show.
var shown = map[string]use{}
