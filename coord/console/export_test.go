package console

// Routes lists every route's pattern, and whether it needs a session.
func Routes() map[string]bool {
	m := make(map[string]bool, len(routes))
	for _, rt := range routes {
		m[rt.pattern] = rt.access == member
	}
	return m
}

var (
	Clean           = clean
	LocalPath       = localPath
	RevocationsText = revocationsText
)
