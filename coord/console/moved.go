package console

import "net/http"

// moved leads an address of before to the one of now, below /network: links that were
// saved.
func (c *Console) moved(v *visit) error {
	to := *v.r.URL
	to.Path, to.RawPath = "/network"+to.Path, "/network"+to.EscapedPath()
	if v.r.URL.Path == "/dns" && to.Query().Get("name") != "" {
		to.Path += "/try"
	}
	http.Redirect(v.w, v.r, localPath(to.RequestURI()), http.StatusPermanentRedirect)
	return nil
}
