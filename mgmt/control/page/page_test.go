package page

import (
	"fmt"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func self(s string) string { return s }

func TestOf(t *testing.T) {
	up := []string{"a", "b", "c", "d", "e"}
	down := []string{"e", "d", "c", "b", "a"}
	for _, c := range []struct {
		items []string
		desc  bool
		size  int32
		want  [][]string
	}{
		{up, false, 2, [][]string{{"a", "b"}, {"c", "d"}, {"e"}}},
		{down, true, 3, [][]string{{"e", "d", "c"}, {"b", "a"}}},
		{up, false, 5, [][]string{up}},
		{up, false, 0, [][]string{up}},
		{nil, false, 1, [][]string{nil}},
	} {
		t.Run(fmt.Sprint(c.size, c.desc), func(t *testing.T) {
			var got [][]string
			token := ""
			for {
				items, next, err := Of("things", c.items, self, c.desc, c.size, token)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, items)
				if token = next; token == "" {
					break
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What was deleted between two pages does not shift the second one.
func TestOfDeleted(t *testing.T) {
	_, token, err := Of("things", []string{"a", "b", "c"}, self, false, 2, "")
	if err != nil {
		t.Fatal(err)
	}
	items, _, err := Of("things", []string{"a", "c", "d"}, self, false, 2, token)
	if diff := cmp.Diff([]string{"c", "d"}, items); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestOfWrong(t *testing.T) {
	for name, token := range map[string]string{"other list": Token("others", "a"), "garbage": "garbage", "long": string(make([]byte, 1000))} {
		if _, _, err := Of("things", []string{"a"}, self, false, 0, token); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	items := make([]string, 2*MaxSize)
	for i := range items {
		items[i] = fmt.Sprintf("%05d", i)
	}
	if got, _, err := Of("things", items, self, false, 1<<30, ""); err != nil || len(got) != MaxSize {
		t.Errorf("largest page has %d, %v", len(got), err)
	}
}

func FuzzToken(f *testing.F) {
	f.Add("things", "a", Token("things", "a"))
	f.Add("things", "images/x.y", "")
	f.Add("things", "", "AAAAAAAAAAAA")
	f.Add("others", "a", Token("things", "a"))
	f.Fuzz(func(t *testing.T, collection, key, token string) {
		if got, ok := parse(collection, token); !ok && got != "" {
			t.Errorf("refused token gave key %q", got)
		}
		made := Token("things", key)
		got, ok := parse("things", made)
		if want := key != "" && len(made) <= maxToken; ok != want || ok && got != key {
			t.Errorf("parse(Token(%q)) = %q, %v", key, got, ok)
		}
		if _, ok := parse("others", made); ok {
			t.Errorf("token of another list accepted")
		}
	})
}
