package ledger_test

import (
	"github.com/getto-systems/hubrelay/internal/ledger"
)

func init() { conformance = append(conformance, registration...) }

// registration is whether Docker Hub calls at all.
var registration = []scenario{
	{"people hear once of a repository whose pushes Docker Hub has never told of", func(f fixture) {
		news := func() (found []ledger.Promotion) {
			for p, err := range f.All(f.t.Context()) {
				f.must(err)
				if p.Event == ledger.Registration {
					found = append(found, p)
				}
			}
			return found
		}
		for _, want := range []int{0, 1, 1} {
			f.must(f.Found(f.t.Context(), "acme/api", "acme/*", "paste the URL"))
			if n := len(news()); n != want {
				f.t.Fatalf("%d pieces of news, want %d", n, want)
			}
		}
		p := news()[0]
		if p.Repository != "acme/api" || p.State != ledger.Waiting || p.Hint != "paste the URL" || !p.Note || !p.Behind() {
			f.t.Errorf("the news is %+v", p)
		}
		due, err := f.Due(f.t.Context(), 10)
		f.must(err)
		if len(due) != 1 || due[0].ID != p.ID {
			f.t.Errorf("due are %+v", due)
		}
	}},
	{"nobody hears of a repository of which Docker Hub has told", func(f fixture) {
		f.must(f.HeardOf(f.t.Context(), "acme/api"))
		f.must(f.HeardOf(f.t.Context(), "acme/api"))
		for range 3 {
			f.must(f.Found(f.t.Context(), "acme/api", "acme/*", "paste the URL"))
		}
		if f.count() != 0 {
			f.t.Error("there is news")
		}
	}},
	{"what is known of Docker Hub's webhook is told", func(f fixture) {
		wants := func(heard bool, found int) {
			f.t.Helper()
			gotHeard, gotFound, err := f.Webhooks(f.t.Context(), "acme/api")
			f.must(err)
			if gotHeard != heard || gotFound != found {
				f.t.Errorf("heard is %t and found %d, want %t and %d", gotHeard, gotFound, heard, found)
			}
		}
		wants(false, 0)
		f.must(f.Found(f.t.Context(), "acme/api", "acme/*", "paste the URL"))
		wants(false, 1)
		f.must(f.HeardOf(f.t.Context(), "acme/api"))
		wants(true, 1)
	}},
}
