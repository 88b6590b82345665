package status

// Health is one thing that needs attention.
type Health struct {
	Code    string `json:"code"`    // stable, for programs: "server-offline", "dns-port-taken"
	Message string `json:"message"` // for people, with the next step
}
