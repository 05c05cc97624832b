package coordinator

import (
	"reflect"
	"strings"
	"testing"
)

// The cases of gitlabhq's own specification of expressions
// (spec/lib/gitlab/ci/pipeline/expression/statement_spec.rb), with their
// results.
func TestExpressionsAsGitLabJudgesThem(t *testing.T) {
	t.Parallel()
	variables := map[string]string{
		"PRESENT_VARIABLE": "my variable", "PATH_VARIABLE": "a/path/variable/value",
		"FULL_PATH_VARIABLE": "/a/full/path/variable/value", "EMPTY_VARIABLE": "",
		"teststring": "abcde", "pattern1": "/^ab.*/", "pattern2": "/^at.*/",
	}
	for expression, want := range map[string]any{
		`$PRESENT_VARIABLE == "my variable"`:                          true,
		`$PRESENT_VARIABLE == 'no match'`:                             false,
		`"my variable" == $PRESENT_VARIABLE`:                          true,
		`$PRESENT_VARIABLE == null`:                                   false,
		`$EMPTY_VARIABLE == null`:                                     false,
		`"" == $EMPTY_VARIABLE`:                                       true,
		`$EMPTY_VARIABLE`:                                             "",
		`$UNDEFINED_VARIABLE == null`:                                 true,
		`null == $UNDEFINED_VARIABLE`:                                 true,
		`$PRESENT_VARIABLE`:                                           "my variable",
		`$UNDEFINED_VARIABLE`:                                         nil,
		`$PRESENT_VARIABLE =~ /var.*e$/`:                              true,
		`$PRESENT_VARIABLE =~ /va\r.*e$/`:                             false,
		`$PRESENT_VARIABLE =~ /va\/r.*e$/`:                            false,
		`$PRESENT_VARIABLE =~ /^var.*/`:                               false,
		`$EMPTY_VARIABLE =~ /var.*/`:                                  false,
		`$UNDEFINED_VARIABLE =~ /var.*/`:                              false,
		`$PRESENT_VARIABLE =~ /VAR.*/i`:                               true,
		`$PATH_VARIABLE =~ /path\/variable/`:                          true,
		`$FULL_PATH_VARIABLE =~ /^\/a\/full\/path\/variable\/value$/`: true,
		`$PRESENT_VARIABLE != "my variable"`:                          false,
		`"my variable" != $PRESENT_VARIABLE`:                          false,
		`$PRESENT_VARIABLE != null`:                                   true,
		`$EMPTY_VARIABLE != null`:                                     true,
		`"" != $EMPTY_VARIABLE`:                                       false,
		`$UNDEFINED_VARIABLE != null`:                                 false,
		`null != $UNDEFINED_VARIABLE`:                                 false,
		`$PRESENT_VARIABLE !~ /var.*e$/`:                              false,
		`$PRESENT_VARIABLE !~ /^var.*/`:                               true,
		`$PRESENT_VARIABLE !~ /^v\ar.*/`:                              true,
		`$PRESENT_VARIABLE !~ /^v\/ar.*/`:                             true,
		`$EMPTY_VARIABLE !~ /var.*/`:                                  true,
		`$UNDEFINED_VARIABLE !~ /var.*/`:                              true,
		`$PRESENT_VARIABLE !~ /VAR.*/i`:                               false,

		`$PRESENT_VARIABLE && "string"`:          "string",
		`$PRESENT_VARIABLE && $PRESENT_VARIABLE`: "my variable",
		`$PRESENT_VARIABLE && $EMPTY_VARIABLE`:   "",
		`$PRESENT_VARIABLE && null`:              nil,
		`"string" && $PRESENT_VARIABLE`:          "my variable",
		`$EMPTY_VARIABLE && $PRESENT_VARIABLE`:   "my variable",
		`null && $PRESENT_VARIABLE`:              nil,
		`$EMPTY_VARIABLE && "string"`:            "string",
		`$EMPTY_VARIABLE && $EMPTY_VARIABLE`:     "",
		`"string" && $EMPTY_VARIABLE`:            "",
		`"string" && null`:                       nil,
		`null && "string"`:                       nil,
		`"string" && "string"`:                   "string",
		`null && null`:                           nil,

		`$PRESENT_VARIABLE =~ /my var/ && $EMPTY_VARIABLE =~ /nope/`: false,
		`$EMPTY_VARIABLE == "" && $PRESENT_VARIABLE`:                 "my variable",
		`$EMPTY_VARIABLE == "" && $PRESENT_VARIABLE != "nope"`:       true,
		`$PRESENT_VARIABLE && $UNDEFINED_VARIABLE`:                   nil,
		`$UNDEFINED_VARIABLE && $EMPTY_VARIABLE`:                     nil,
		`$UNDEFINED_VARIABLE && $PRESENT_VARIABLE`:                   nil,

		`$FULL_PATH_VARIABLE =~ /^\/a\/full\/path\/variable\/value$/ && $PATH_VARIABLE =~ /path\/variable/`:     true,
		`$FULL_PATH_VARIABLE =~ /^\/a\/bad\/path\/variable\/value$/ && $PATH_VARIABLE =~ /path\/variable/`:      false,
		`$FULL_PATH_VARIABLE =~ /^\/a\/bad\/path\/variable\/value$/ || $PATH_VARIABLE =~ /path\/variable/`:      true,
		`$FULL_PATH_VARIABLE =~ /^\/a\/bad\/path\/variable\/value$/ || $PATH_VARIABLE =~ /bad\/path\/variable/`: false,

		`$PRESENT_VARIABLE =~ /my var/ || $EMPTY_VARIABLE =~ /nope/`: true,
		`$EMPTY_VARIABLE == "" || $PRESENT_VARIABLE`:                 true,
		`$PRESENT_VARIABLE != "nope" || $EMPTY_VARIABLE == ""`:       true,
		`$PRESENT_VARIABLE && null || $EMPTY_VARIABLE == ""`:         true,
		`$PRESENT_VARIABLE || $UNDEFINED_VARIABLE`:                   "my variable",
		`$UNDEFINED_VARIABLE || $PRESENT_VARIABLE`:                   "my variable",
		`$UNDEFINED_VARIABLE == null || $PRESENT_VARIABLE`:           true,
		`$PRESENT_VARIABLE || $UNDEFINED_VARIABLE == null`:           "my variable",
		// Results with an empty left side.
		`$EMPTY_VARIABLE || $PRESENT_VARIABLE`: "",

		`($PRESENT_VARIABLE)`:   "my variable",
		`(($PRESENT_VARIABLE))`: "my variable",
		`(($PRESENT_VARIABLE && null) || $EMPTY_VARIABLE == "")`:     true,
		`($PRESENT_VARIABLE) && (null || $EMPTY_VARIABLE == "")`:     true,
		`("string" || "test") == "string"`:                           true,
		`(null || ("test" == "string"))`:                             false,
		`("string" == ("test" && "string"))`:                         true,
		`("string" == ("test" || "string"))`:                         false,
		`("string" == "test" || "string")`:                           "string",
		`("string" == ("string" || (("1" == "1") && ("2" == "3"))))`: true,

		`$teststring =~ "abcde"`:     true,
		`$teststring =~ $teststring`: true,
		`$teststring =~ $pattern1`:   true,
		`$teststring =~ $pattern2`:   false,

		`true`:                       true,
		`$EMPTY_VARIABLE == false`:   false,
		"\t$PRESENT_VARIABLE ":       "my variable",
		`$PATH_VARIABLE =~ /PATH/is`: true,
	} {
		e, err := ParseExpression(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		if got := e.root.value(variables); !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %#v, want %#v", expression, got, want)
		}
		if got := e.True(variables); got != (want == true || want != "" && want != nil && want != false) {
			t.Errorf("%s matches: %t", expression, got)
		}
	}
}

// parser_spec.rb and lexer_spec.rb.
func TestExpressionsThatGitLabRefuses(t *testing.T) {
	t.Parallel()
	for _, expression := range []string{
		``, `$VAR "text"`, `== "123"`, `$VAR ==`, `12345`, `$V1 123 $V2`, `$VAR == (`, `$VAR2 == ("aa"`, `$VAR2 == ("aa"))`,
		`$VAR2 == "aa")`, `(($VAR2 == "aa")`, `($VAR2 == "aa"))`, `$INVALID = 1`, `//`, `/ some ( thin/i`, `invalid &&`,
		strings.Repeat("$A || ", 60) + "$A",
	} {
		if _, err := ParseExpression(expression); err == nil {
			t.Errorf("%q is valid", expression)
		}
	}
}

// parser_spec.rb: precedence.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]string{
		`$A == "1" == $B`:                    `((A == 1) == B)`,
		`$A || $B && $C`:                     `(A || (B && C))`,
		`$A && $B || $C && $D`:               `((A && B) || (C && D))`,
		`$A && ($B || $C) && $D`:             `((A && (B || C)) && D)`,
		`$A == "a" || $B == "b" && $C || $D`: `(((A == a) || ((B == b) && C)) || D)`,
	} {
		e, err := ParseExpression(expression)
		if err != nil {
			t.Fatal(err)
		}
		if got := show(e.root); got != want {
			t.Errorf("%s is %s, want %s", expression, got, want)
		}
	}
}

func show(n node) string {
	switch n := n.(type) {
	case variable:
		return n.name
	case operator:
		return "(" + show(n.left) + " " + n.sign + " " + show(n.right) + ")"
	}
	return n.value(nil).(string)
}

func FuzzParseExpression(f *testing.F) {
	f.Add(`$A == "a" || ($B =~ /b.*/i && null)`)
	f.Fuzz(func(t *testing.T, text string) {
		if e, err := ParseExpression(text); err == nil {
			e.True(map[string]string{"A": "a", "B": ""})
		}
	})
}
