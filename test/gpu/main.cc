#include <gtest/gtest.h>

#include <cstring>

int main(int count, char** arguments) {
  constexpr char kFilter[] = "--gtest_filter=";
  const char* part = "";
  for (int i = 1; i < count; ++i)
    if (std::strncmp(arguments[i], kFilter, sizeof(kFilter) - 1) == 0) part = arguments[i] + sizeof(kFilter) - 1;
  return testing::RunCases(part);
}
