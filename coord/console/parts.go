package console

import "fmt"

// What the shared parts of templates/parts.html take.

// statusView is how something is.
type statusView struct{ Kind, Word string }

var statusWords = map[string]string{"online": "Online", "stale": "Stale", "offline": "Offline", "attention": "Attention", "pending": "Pending"}

// statusOf makes a statusView of its kind, with another word if there is one.
func statusOf(kind any, word ...string) (statusView, error) {
	switch k := kind.(type) {
	case statusView:
		return k, nil
	case string:
		if w, ok := statusWords[k]; ok {
			if len(word) > 0 {
				w = word[0]
			}
			return statusView{k, w}, nil
		}
	}
	return statusView{}, fmt.Errorf("no status %v", kind)
}

// pathView is the path to a device: what it is called, and how its line is broken.
type pathView struct{ Kind, Word, Dashes string }

// pathOf makes a pathView of its kind; of an unknown one nothing.
func pathOf(kind string) *pathView {
	switch kind {
	case "direct":
		return &pathView{kind, "Direct", ""}
	case "udp":
		return &pathView{kind, "Relayed UDP", "6 3"}
	case "relay":
		return &pathView{kind, "Relay", "2 3"}
	}
	return nil
}

// copyView is a text to copy, and what it is: "address of plc-7".
type copyView struct{ Text, What string }

func copyOf(text, what string) copyView { return copyView{text, what} }

// commandView is a line for a terminal, and what it does.
type commandView struct{ What, Line string }

// commandList takes pairs of what a line does and the line. Those without a line are left
// out.
func commandList(pairs ...string) ([]commandView, error) {
	if len(pairs)%2 != 0 {
		return nil, fmt.Errorf("a line without what it does")
	}
	var list []commandView
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			list = append(list, commandView{pairs[i], pairs[i+1]})
		}
	}
	return list, nil
}

// tabsView is the parts of one thing: what the row of them is called, and they. Of is that
// thing, where parts of another on the same page are called the same.
type tabsView struct {
	Name string
	List []tab
	Of   string
}
