package hostname

import "testing"

func TestNearest(t *testing.T) {
	known := []string{"kitchen-pi", "kitchen-tv", "laptop", "attic", "kuche", "nas", "sensor-1", "sensor-2"}
	for typed, want := range map[string]string{
		"kitchn-pi": "kitchen-pi", "Kitchen-Pi": "kitchen-pi", "kitchne-pi": "kitchen-pi", "kitchen-pii": "kitchen-pi",
		"kitchen":  "", // two names start so
		"kitchenp": "kitchen-pi", "lap": "laptop", "aptop": "laptop", "Küche": "kuche", "na": "", "n": "",
		"sensor-3": "", "sensor": "", "printer": "", "": "", "xyz": "",
		"atttic": "attic", "nsa": "nas",
	} {
		if got := Nearest(typed, known); got != want {
			t.Errorf("%q: %q, want %q", typed, got, want)
		}
	}
	if Nearest("x", nil) != "" {
		t.Error("a name near an empty list")
	}
}
