#pragma once

// What the tests of kernels use of GoogleTest, for machines with a GPU that have neither it nor a network
// (scripts/gpu-check.sh).

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

namespace testing {

// Of the program, by way of inline variables.
inline bool has_failed = false;  // the case that runs
inline std::vector<std::string> traces;

struct Case {
  std::string name;
  std::function<void()> run;
};
inline std::vector<Case>& Cases() {
  static std::vector<Case> cases;
  return cases;
}

class AssertionResult {
 public:
  explicit AssertionResult(bool is_true) : is_true_(is_true) {}
  template <class T>
  AssertionResult& operator<<(const T& value) {
    std::ostringstream text;
    text << value;
    message_ += text.str();
    return *this;
  }
  explicit operator bool() const { return is_true_; }
  const std::string& message() const { return message_; }

 private:
  bool is_true_;
  std::string message_;
};
inline AssertionResult AssertionSuccess() { return AssertionResult(true); }
inline AssertionResult AssertionFailure() { return AssertionResult(false); }

class Test {
 public:
  virtual ~Test() = default;
  virtual void SetUp() {}
  virtual void TearDown() {}
  virtual void TestBody() = 0;
  static bool HasFailure() { return has_failed; }
  static bool HasFatalFailure() { return has_failed; }
};

template <class T>
class TestWithParam : public Test {
 public:
  using ParamType = T;
  static const T& GetParam() { return Param(); }
  static T& Param() {
    static T param{};
    return param;
  }
};

template <class T>
struct Interval {
  T begin, end;
};
template <class T>
Interval<T> Range(T begin, T end) {
  return {begin, end};
}

template <class T>
std::string Shown(const T& value) {
  if constexpr (requires(std::ostringstream& s) { s << value; }) {
    std::ostringstream text;
    text.precision(9);
    text << value;
    return text.str();
  } else {
    return "a value";
  }
}

// A failure with what the test adds to it; printed at the end of the statement.
class Failure {
 public:
  Failure(const char* file, int line, std::string text) : file_(file), line_(line), text_(std::move(text)) {}
  ~Failure() {
    has_failed = true;
    std::printf("%s:%d: %s%s%s\n", file_, line_, text_.c_str(), more_.str().empty() ? "" : "\n  ", more_.str().c_str());
    for (const std::string& trace : traces) std::printf("  in %s\n", trace.c_str());
  }
  template <class T>
  Failure& operator<<(const T& value) {
    more_ << value;
    return *this;
  }

 private:
  const char* file_;
  int line_;
  std::string text_;
  std::ostringstream more_;
};
// Makes a Failure, whatever is put into it, the value of a return statement.
struct Voided {
  void operator=(const Failure&) const {}
};

struct Trace {
  explicit Trace(std::string text) { traces.push_back(std::move(text)); }
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;
  ~Trace() { traces.pop_back(); }
};

template <class Fixture>
void RunCase() {
  Fixture fixture;
  Test& test = fixture;  // whose functions are public, whatever the fixture's are
  test.SetUp();
  fixture.TestBody();
  test.TearDown();
}

// Bodies of TEST_P, until INSTANTIATE_TEST_SUITE_P gives them values.
struct Pattern {
  std::string suite, name;
  std::function<void()> run;
};
inline std::vector<Pattern>& Patterns() {
  static std::vector<Pattern> patterns;
  return patterns;
}
template <class Fixture>
int AddPattern(const char* suite, const char* name) {
  Patterns().push_back({suite, name, RunCase<Fixture>});
  return 0;
}
template <class Fixture>
int AddCase(const char* suite, const char* name) {
  Cases().push_back({std::string(suite) + "." + name, RunCase<Fixture>});
  return 0;
}
template <class Fixture, class Values>
int Instantiate(const char* suite, const Values& values) {
  using T = typename Fixture::ParamType;
  for (T value = static_cast<T>(values.begin); value < static_cast<T>(values.end); ++value)
    for (const Pattern& pattern : Patterns())
      if (pattern.suite == suite)
        Cases().push_back({pattern.suite + "." + pattern.name + "/" + std::to_string(value), [pattern, value] {
                             Fixture::Param() = value;
                             pattern.run();
                           }});
  return 0;
}

// Runs the cases whose names hold `part`; the exit status.
inline int RunCases(const char* part) {
  int passed = 0, failed = 0;
  for (const Case& one : Cases()) {
    if (one.name.find(part) == std::string::npos) continue;
    has_failed = false;
    one.run();
    std::printf("%s %s\n", has_failed ? "FAIL" : "ok  ", one.name.c_str());
    std::fflush(stdout);
    ++(has_failed ? failed : passed);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}

}  // namespace testing

#define OPENLORA_TEST_CLASS(suite, name) suite##_##name##_Test
#define OPENLORA_TEST(suite, name, Base, Add)                          \
  class OPENLORA_TEST_CLASS(suite, name) : public Base {               \
   public:                                                             \
    void TestBody() override;                                          \
    static const int kAdded;                                           \
  };                                                                   \
  const int OPENLORA_TEST_CLASS(suite, name)::kAdded =                 \
      ::testing::Add<OPENLORA_TEST_CLASS(suite, name)>(#suite, #name); \
  void OPENLORA_TEST_CLASS(suite, name)::TestBody()
#define TEST(suite, name) OPENLORA_TEST(suite, name, ::testing::Test, AddCase)
#define TEST_F(suite, name) OPENLORA_TEST(suite, name, suite, AddCase)
#define TEST_P(suite, name) OPENLORA_TEST(suite, name, suite, AddPattern)
#define INSTANTIATE_TEST_SUITE_P(prefix, suite, values) \
  const int suite##_##prefix##_added = ::testing::Instantiate<suite>(#suite, values)

#define OPENLORA_TEST_IF(is_fine, text, on_failure) \
  if (is_fine) {                                    \
  } else                                            \
    on_failure ::testing::Failure(__FILE__, __LINE__, text)
#define OPENLORA_TEST_RETURN return ::testing::Voided() =
#define OPENLORA_TEST_COMPARE(a, op, b, on_failure)                                                                    \
  OPENLORA_TEST_IF(((a)op(b)), std::string(#a " " #op " " #b ": ") + ::testing::Shown(a) + ", " + ::testing::Shown(b), \
                   on_failure)
#define OPENLORA_TEST_NEAR(a, b, tolerance, on_failure)                                                               \
  OPENLORA_TEST_IF(std::abs((a) - (b)) <= (tolerance),                                                                \
                   std::string(#a " near " #b ": ") + ::testing::Shown(a) + ", " + ::testing::Shown(b) + " within " + \
                       ::testing::Shown(tolerance),                                                                   \
                   on_failure)

#define EXPECT_EQ(a, b) OPENLORA_TEST_COMPARE(a, ==, b, )
#define EXPECT_NE(a, b) OPENLORA_TEST_COMPARE(a, !=, b, )
#define EXPECT_LT(a, b) OPENLORA_TEST_COMPARE(a, <, b, )
#define EXPECT_LE(a, b) OPENLORA_TEST_COMPARE(a, <=, b, )
#define EXPECT_GT(a, b) OPENLORA_TEST_COMPARE(a, >, b, )
#define EXPECT_GE(a, b) OPENLORA_TEST_COMPARE(a, >=, b, )
#define EXPECT_TRUE(a) OPENLORA_TEST_IF(static_cast<bool>(a), #a, )
#define EXPECT_FALSE(a) OPENLORA_TEST_IF(!static_cast<bool>(a), "not " #a, )
#define EXPECT_NEAR(a, b, tolerance) OPENLORA_TEST_NEAR(a, b, tolerance, )
#define ASSERT_EQ(a, b) OPENLORA_TEST_COMPARE(a, ==, b, OPENLORA_TEST_RETURN)
#define ASSERT_NE(a, b) OPENLORA_TEST_COMPARE(a, !=, b, OPENLORA_TEST_RETURN)
#define ASSERT_LT(a, b) OPENLORA_TEST_COMPARE(a, <, b, OPENLORA_TEST_RETURN)
#define ASSERT_LE(a, b) OPENLORA_TEST_COMPARE(a, <=, b, OPENLORA_TEST_RETURN)
#define ASSERT_GT(a, b) OPENLORA_TEST_COMPARE(a, >, b, OPENLORA_TEST_RETURN)
#define ASSERT_GE(a, b) OPENLORA_TEST_COMPARE(a, >=, b, OPENLORA_TEST_RETURN)
#define ASSERT_TRUE(a) OPENLORA_TEST_IF(static_cast<bool>(a), #a, OPENLORA_TEST_RETURN)
#define ASSERT_FALSE(a) OPENLORA_TEST_IF(!static_cast<bool>(a), "not " #a, OPENLORA_TEST_RETURN)
#define ASSERT_NEAR(a, b, tolerance) OPENLORA_TEST_NEAR(a, b, tolerance, OPENLORA_TEST_RETURN)
#define ADD_FAILURE() ::testing::Failure(__FILE__, __LINE__, "failed")
#define OPENLORA_TEST_JOIN(a, b) a##b
#define OPENLORA_TEST_NAMED(a, line) OPENLORA_TEST_JOIN(a, line)
#define SCOPED_TRACE(text) const ::testing::Trace OPENLORA_TEST_NAMED(trace_, __LINE__)(::testing::Shown(text))
